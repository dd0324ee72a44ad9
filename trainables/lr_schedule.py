"""How the learning rate goes over a training."""

from __future__ import annotations

import math


def lr_factor(step: int, *, num_steps: int, warmup_steps: int, shape: str) -> float:
    """Learning rate at a step as a share of its peak, 0 to 1.

    Args:
        step: 0-based.
        num_steps: of the whole training.
        warmup_steps: over which the learning rate rises.
        shape: `constant`, `linear` or `cosine`: what follows.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if shape == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
