"""Base models that the strategies adapt: SD 1.5 (hub id or local folder) and the bundled mini model."""
