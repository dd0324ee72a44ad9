"""Pure results: metrics over features, feature extractors and their cache, the Pareto front and the report.

Nothing here knows Ray, MLflow, the sweep or the trainables.
"""
