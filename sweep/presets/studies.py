"""What the presets of published studies have in common: one trial for each strategy, at the values that were published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.config import ComputeConfig, DataConfig, SearchConfig
from trainables.budgets import NO_BUDGET, Budget

Values = Mapping[str, Mapping[str, Any]]
"""By strategy, all of its hyperparameters, with `lr` (in combinations of each part) and `batch_size`."""


def each_once(values: Values, budget: Budget = NO_BUDGET) -> SearchConfig:
    """A grid of one point for each strategy, all trained for as much: nothing is left to draw.

    The trial scheduler is one that has rungs scored and never stops a strategy's only trial.
    """
    fixed = {name: dict(settings) for name, settings in values.items()}
    return SearchConfig(
        space="core",
        strategies=tuple(values),
        hyperparameters=fixed,
        sampler="grid",
        scheduler="hypervolume",
        num_trials=len(values),
        budget=budget,
    )


def prepared(name: str, resolution_px: int = 512) -> DataConfig:
    """The data set that the preset's docstring says how to prepare."""
    return DataConfig(source="prepared", path=Path("prepared") / name, resolution_px=resolution_px)


def gpus(workers_per_trial: int = 1) -> ComputeConfig:
    """The resources of a study: so many GPUs a trial, and one for the evaluation."""
    return ComputeConfig(
        workers_per_trial=workers_per_trial,
        cpus_per_worker=4,
        gpus_per_worker=1,
        evaluation_cpus=4,
        evaluation_gpus=1,
    )
