"""Names and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.features import split_metric
from analysis.front.pareto import PARAMETER_PREFIX, Objective
from analysis.metrics import METRICS
from analysis.studies.rung_agreement import EARLY

COLUMNS = {
    "trainable_parameters": "trainable parameters",
    "epoch_s": "epoch time (s)",
    "operations_per_image": "operations per image",
    "evaluation_s": "evaluation time (s)",
    "images_per_s": "images per second",
    "peak_memory_gib": "peak memory (GiB)",
    "num_workers": "workers",
    "loss": "training loss",
    "mean_rank": "mean rank",
    "max_rank": "largest rank",
}
ARROWS = {"min": "↓", "max": "↑"}
BETTER = {"min": "lower is better", "max": "higher is better"}


def label(name: str) -> str:
    """A column's name for a reader: `fid_mini` is "FID (mini)", `early_kid_mini` is "early KID (mini)"."""
    column, extractor = split_metric(name)
    metric = METRICS.get(column.removeprefix(EARLY))
    if metric is None:
        return COLUMNS.get(name, name.replace("_", " "))
    early = "early " if column.startswith(EARLY) else ""
    return f"{early}{metric.label}" + (f" ({extractor})" if extractor else "")


def axis_label(objective: Objective) -> str:
    """The label with its direction."""
    return f"{label(objective.name)}, {BETTER[objective.direction]}"


def number(value: Any) -> str:
    """At most four digits of a fraction, all of a whole number; a dash where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def error(value: float | None) -> str:
    """A standard error after its value, to two digits; nothing where it is not known."""
    return f" ± {value:.2g}" if value else ""


def percent(share: float | None) -> str:
    """A probability in whole per cents, which are all that resamples tell; nothing where it is not known."""
    if share is None:
        return ""
    return "> 99 %" if share > 0.99 else "< 1 %" if share < 0.01 else f"{share:.0%}".replace("%", " %")


def parameters(params: Mapping[str, Any], strategy: str) -> str:
    """Hyperparameters in a line, without the strategy's name before each of its own."""
    parts = [
        f"{_own_name(name, strategy).replace('_', ' ')} {number(value)}"
        for name, value in params.items()
        if _own_name(name, strategy) != "strategy" and number(value) != "–"
    ]
    return ", ".join(parts)


def _own_name(name: str, strategy: str) -> str:
    return name.removeprefix(PARAMETER_PREFIX).removeprefix(f"{strategy}/")
