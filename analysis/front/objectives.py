"""What can be optimised or picked by: metrics and costs, each with the direction that is better."""

from __future__ import annotations

from typing import Final

from analysis.features import split_metric
from analysis.front.pareto import Direction
from analysis.metrics import METRICS

COSTS: Final[dict[str, Direction]] = {
    "trainable_parameters": "min",
    "epoch_s": "min",
    "images_per_s": "max",
    "peak_memory_gib": "min",
}
"""What a trial costs, by its name in the results, with the direction that is better."""


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
