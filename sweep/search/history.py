"""What a search knows of its trials: what each was given, and how it stood at rungs and at its end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.front.objectives import COSTS
from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED, FAILED
from analysis.studies.rung_agreement import EARLY, STANDARD_ERROR
from sweep.trials.ends import FINAL, TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

Floats = NDArray[np.float64]
EARLIER: Final = -1_000_000
"""Number of the first trial of an earlier sweep; those that follow lie below it."""
MOST_EARLIER: Final = 100
"""The newest trials of earlier sweeps that are kept: a model takes as long as the cube of what it is given."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial had come to.

    Attributes:
        epochs: that were behind it; infinite at its end.
        values: float[m], the objectives, all to be minimised, costs as logarithms; metrics of a trial that failed by its
            configuration's fault are infinite, its costs NaN.
        errors: float[m], their standard errors; 0 where none is known.
    """

    epochs: float
    values: Floats
    errors: Floats


@dataclass(kw_only=True)
class Tried:
    """A trial that was suggested.

    Attributes:
        number: 0-based number of the suggestion.
        strategy: the name of the strategy.
        params: the search sampler's own values by Optuna's names.
        measured: at rungs, in their order, and at the end unless the trial was stopped or lost.
        is_open: whether it has not ended.
    """

    number: int
    strategy: str
    params: Mapping[str, Any]
    measured: list[Measured] = field(default_factory=list)
    is_open: bool = True

    @property
    def has_values(self) -> bool:
        """Whether it was measured: all that a failure says is that there are no values."""
        return any(np.isfinite(measured.values).all() for measured in self.measured)

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end, be it by its own failure."""
        return bool(self.measured) and math.isinf(self.measured[-1].epochs)

    @property
    def end(self) -> Measured | None:
        """How it ended, if it was completed."""
        return self.measured[-1] if self.is_whole and np.isfinite(self.measured[-1].values).all() else None


class History(TrialListener):
    """All trials of a search by the events that a sweep's log holds."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        """Nothing was tried.

        Args:
            objectives: each one's key in a trial's final report, and its direction.
        """
        self.objectives: Final = tuple(objectives)
        self._names = [objective.name for objective in self.objectives]
        self._rung_names = [rung_name(objective) for objective in self.objectives]
        self._has_rungs = any(name not in COSTS for name in self._names)
        self._tried: dict[str, Tried] = {}
        self._earlier: list[Tried] = []
        self._count = itertools.count()
        self._reports: dict[str, Mapping[str, Any]] = {}

    def add_earlier(self, strategy: str, params: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Add a trial of an earlier sweep that ended with these metrics; it has a number that no trial of this one has.

        Args:
            strategy: its name.
            params: by Optuna's names, as this search draws them.
            metrics: its last report.
        """
        number = EARLIER - next(self._count)
        end = self._measured(metrics, math.inf, self._names)
        tried = Tried(number=number, strategy=strategy, params=params, measured=[end], is_open=False)
        self._earlier = [*self._earlier, tried][-MOST_EARLIER:]

    def __iter__(self) -> Iterator[Tried]:
        """The trials in the order of their numbers, those of earlier sweeps first."""
        return iter(sorted([*self._earlier, *self._tried.values()], key=lambda tried: tried.number))

    def on_start(self, suggestion: Suggestion) -> None:
        """Note what is tried; once, though it is suggested first and begun later."""
        strategy = suggestion.choice["strategy"]["name"]
        tried = Tried(number=suggestion.number, strategy=strategy, params=suggestion.params)
        self._tried.setdefault(suggestion.trial_id, tried)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Note what a rung measured; an epoch that is reported anew takes the place of the old and of what followed it.

        Where all objectives are costs, which every epoch reports, there are no rungs.
        """
        self._reports[trial_id] = metrics
        if trial_id in self._tried:
            self._tried[trial_id] = self._after(self._tried[trial_id], metrics)

    def with_report(self, trial_id: str, metrics: Mapping[str, Any]) -> tuple[Tried, ...]:
        """The trials as they were if one of them had reported this."""
        changed = self._tried[trial_id]
        return tuple(self._after(tried, metrics) if tried is changed else tried for tried in self)

    def _after(self, tried: Tried, metrics: Mapping[str, Any]) -> Tried:
        """A trial after a report."""
        is_rung = not metrics.get(FINAL) and "epoch" in metrics
        if not is_rung or not self._has_rungs:
            return tried
        epochs = metrics["epoch"] + 1
        measured = [measurement for measurement in tried.measured if measurement.epochs < epochs]
        if all(name in metrics for name in self._rung_names):
            measurement = self._measured(metrics, epochs, self._rung_names)
            measured += [measurement] if np.isfinite(measurement.values).all() else []
        return replace(tried, measured=measured)

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Note the values of a trial that was completed, and what failed by its configuration's fault."""
        report = self._reports.pop(trial_id, {})
        if (tried := self._tried.get(trial_id)) is None:
            return  # a smaller adapter that was cut out of a training
        tried.is_open = False
        if end.kind == COMPLETED:
            tried.measured.append(self._measured(report, math.inf, self._names))
        elif end.kind == FAILED and not end.lost:
            values = np.array([math.nan if objective.name in COSTS else math.inf for objective in self.objectives])
            tried.measured.append(Measured(epochs=math.inf, values=values, errors=np.zeros(len(values))))

    def _measured(self, metrics: Mapping[str, Any], epochs: float, names: Sequence[str]) -> Measured:
        values, errors = reported(metrics, self.objectives, names)
        return Measured(epochs=epochs, values=values, errors=errors)


def reported(
    metrics: Mapping[str, Any], objectives: Sequence[Objective], names: Sequence[str]
) -> tuple[Floats, Floats]:
    """What a report says of the objectives.

    Args:
        metrics: the report.
        objectives: m of them.
        names: under which name it has each.

    Returns:
        float[m], the values, all to be minimised, costs as logarithms, NaN where there is none; and float[m], their
        standard errors, 0 where there is none.
    """
    named = zip(names, objectives, strict=True)
    values = [_minimised(float(metrics.get(name, math.nan)), objective) for name, objective in named]
    errors = [_known(float(metrics.get(f"{name}{STANDARD_ERROR}", 0.0))) for name in names]
    return np.array(values), np.array(errors)


def _minimised(value: float, objective: Objective) -> float:
    """`comparable` and `minimised` of one number: of so few, arrays would take ten times as long."""
    if objective.name in COSTS:
        value = float(np.log10(value)) if value > 0 else math.nan
    return value if objective.direction == "min" else -value


def _known(error: float) -> float:
    return error if math.isfinite(error) else float(np.nan_to_num(error))


def rung_name(objective: Objective) -> str:
    """An objective's name in a rung's report: a metric of few films has its own, a cost the same as at the end."""
    return objective.name if objective.name in COSTS else f"{EARLY}{objective.name}"
