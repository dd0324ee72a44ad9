"""The Pareto front of a sweep and its knee."""
