"""Orchestration: configuration, search, evaluation, tracking and the commands."""
