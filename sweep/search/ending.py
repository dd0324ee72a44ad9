"""When a sweep ends before all of its trials: its hours or its money are spent, or its front has stopped growing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from analysis.front.hypervolume import comparable, hypervolume, nadir
from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED
from sweep.search.settings import StopConfig
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

CHECKS: Final = 3
"""Completed trials in a row after which the front must be found to have stopped growing."""
FEWEST_IN_WINDOW: Final = 10
SECONDS: Final = ("epoch_s", "evaluation_s")


class Ending(TrialListener):
    """Follows a sweep, and says when no further trial is to begin; those that run come to their end.

    Args:
        rules: the user's.
        objectives: each one's key in a trial's final report, and its direction.
        strategies: of which each must have ended once before the front counts as grown.
        concurrent_trials: the front must not have grown over the last 10 completed trials, or twice as many as run at once.
        gpus_per_worker: may be a fraction.
        most_workers: of a trial; reports by earlier versions do not say how many it had.
        clock: gives seconds.
    """

    def __init__(
        self,
        rules: StopConfig,
        objectives: Sequence[Objective],
        *,
        strategies: Sequence[str],
        concurrent_trials: int,
        gpus_per_worker: float,
        most_workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules, self._objectives = rules, tuple(objectives)
        self._gpus, self._most_workers = gpus_per_worker, most_workers
        self._window = max(FEWEST_IN_WINDOW, 2 * concurrent_trials)
        self._clock, self._started_s = clock, clock()
        self._missing = set(strategies)
        self._strategies: dict[str, str] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}
        self._values: list[list[float]] = []
        self._worker_s, self._idle_checks, self._growth = 0.0, 0, np.inf

    def on_start(self, suggestion: Suggestion) -> None:
        """Remember what is tried."""
        self._strategies[suggestion.trial_id] = suggestion.choice["strategy"]["name"]

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Count what the trial took of the workers that it had."""
        took_s = sum(float(metrics.get(name, 0.0)) for name in SECONDS)
        self._worker_s += took_s * metrics.get("num_workers", self._most_workers)
        self._reports[trial_id] = metrics

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Look whether a completed trial let the front grow."""
        self._missing.discard(self._strategies.pop(trial_id, ""))
        report = self._reports.pop(trial_id, {})
        if end.kind == COMPLETED and report:
            self._values.append([float(report[objective.name]) for objective in self._objectives])
            self._check_growth()

    def reason(self) -> str | None:
        """Why no further trial is to begin; None while the sweep goes on."""
        rules, hours = self._rules, (self._clock() - self._started_s) / 3600
        gpu_hours = self._worker_s * self._gpus / 3600
        if rules.hours is not None and hours >= rules.hours:
            return f"search.stop.hours={rules.hours:g} are over"
        if rules.gpu_hours is not None and gpu_hours >= rules.gpu_hours:
            return f"trials took {gpu_hours:.3g} GPU-hours, of search.stop.gpu_hours={rules.gpu_hours:g}"
        if rules.money is not None and (spent := hours * (rules.price_per_hour or 0.0)) >= rules.money:
            return f"{spent:.2f} are spent at {rules.price_per_hour:g} an hour, of search.stop.money={rules.money:g}"
        if self._idle_checks >= CHECKS:
            return (
                f"hypervolume grew by {self._growth:.1%} over the last {self._window} completed trials, less than "
                f"search.stop.growth={rules.growth:g}, {CHECKS} checks running"
            )
        return None

    def _check_growth(self) -> None:
        if self._rules.growth is None or self._missing or len(self._values) <= self._window:
            return
        directions = [objective.direction for objective in self._objectives]
        values = comparable(self._values, self._objectives)
        reference = nadir(values, directions)
        now, before = (hypervolume(some, directions, reference) for some in (values, values[: -self._window]))
        self._growth = now / before - 1 if before > 0 else np.inf
        self._idle_checks = self._idle_checks + 1 if self._growth < self._rules.growth else 0
