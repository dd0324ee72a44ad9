"""What can be optimised or picked by: metrics and costs, each with the direction that is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from analysis.features import split_metric
from analysis.front.pareto import Direction, Objective
from analysis.metrics import METRICS

OPERATIONS: Final = "operations_per_image"
"""Counted on shapes before a trial starts; a trial reports it only where it is asked for."""
COSTS: Final[dict[str, Direction]] = {
    "trainable_parameters": "min",
    "epoch_s": "min",
    "images_per_s": "max",
    "peak_memory_gib": "min",
    OPERATIONS: "min",
}
"""What a trial costs, by its name in the results, with the direction that is better."""

TIMED: Final = ("epoch_s", "images_per_s")
"""Costs that a clock measures; they depend on what else the machine did."""

BASE: Final = "base"
"""Stands for the un-adapted base model where trials have their id."""
COSTS_OF_BASE: Final = {"min": 0.0, "max": math.inf}
"""What not adapting costs, by the direction that is better."""


def objective_directions() -> dict[str, Direction]:
    """Every objective's name in a configuration, with the direction that is better: "min" or "max"."""
    return {**{name: metric.direction for name, metric in METRICS.items()}, **COSTS}


def column_direction(column: str) -> Direction | None:
    """Which way of a column of the results is better, or none where it is neither metric nor cost.

    Args:
        column: a cost; or a metric with its extractor, of all films or of one condition, as `fid_mini` and `fid_mini/Edema`.
    """
    name, _ = split_metric(column.partition("/")[0])
    return objective_directions().get(name)


def base_values(baseline: Mapping[str, Any] | None, objectives: Sequence[Objective]) -> dict[str, float]:
    """The un-adapted base model as a point among the trials: its scores, and no cost.

    Args:
        baseline: its scores by their names.
        objectives: of the sweep.

    Returns:
        A value for each objective, infinite for a cost of which more is better; empty where a score is missing, and where
        all objectives are costs, in which nothing beats not adapting.
    """
    if all(objective.name in COSTS for objective in objectives):
        return {}
    known = {
        objective.name: COSTS_OF_BASE[objective.direction]
        if objective.name in COSTS
        else float((baseline or {}).get(objective.name, math.nan))
        for objective in objectives
    }
    return {} if any(math.isnan(value) for value in known.values()) else known
