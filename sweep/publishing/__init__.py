"""Adapters as others get them: where they come from, their model card, the hub."""
