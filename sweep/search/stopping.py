"""Which trials are stopped at which rung: the state behind the trial scheduler, rebuilt from the event log alone.

Free of Ray, so that a benchmark can replay recorded learning curves through the very decisions of a sweep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.front.objectives import COSTS
from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED
from sweep.search.history import reported, rung_name
from sweep.search.ladder import Ladder
from sweep.search.stopping_rules import GAIN, Standing, StoppingRule
from sweep.trials.ends import FINAL, TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

TIMED: Final = ("epoch_s", "images_per_s")
"""Costs that are measured by the clock."""
LEAST_OTHERS: Final = 4
"""Trials that a rung must hold before one is compared with them."""


def finishes_each(scheduler: str, sampler: str) -> bool:
    """Whether each strategy has a trial that is trained to its end, by the names of trial scheduler and search sampler."""
    return scheduler != GAIN or sampler == "front"


def never_stopped(scheduler: str, sampler: str, num_strategies: int) -> int:
    """How many trials of a sweep are trained to their end whatever they show.

    Args:
        scheduler: name of the trial scheduler.
        sampler: name of the search sampler.
        num_strategies: that the sweep tries.
    """
    return max(num_strategies, LEAST_OTHERS) if finishes_each(scheduler, sampler) else LEAST_OTHERS


class Stopping(TrialListener, ABC):
    """Decides at the rungs of a ladder whether a trial goes on, and knows who has reached which.

    A trial always goes on below its strategy's floor, where few have reached the rung, and where it could not be evaluated.
    What it is compared with is what had reached the rung when it arrived.
    """

    def __init__(self, ladder: Ladder, objectives: Sequence[Objective]) -> None:
        """No trial has reached a rung.

        Args:
            ladder: where trials are compared.
            objectives: as in a trial's final report; how rungs report them is known here.
        """
        self.ladder = ladder
        self._objectives = tuple(objectives)
        self._strategies: dict[str, str] = {}
        self._arrivals: dict[int, dict[str, NDArray[np.float64]]] = {}
        """By rung, the values of the trials that reached it."""
        self._last: dict[str, Mapping[str, Any]] = {}
        """The last report of each trial that has not ended."""

    @abstractmethod
    def decide(self, trial_id: str, metrics: Mapping[str, Any]) -> TrialEnd | None:
        """How a trial that reports this ends here; None: it goes on. Nothing is changed by the question.

        Args:
            trial_id: of a trial that has started.
            metrics: an epoch's report.
        """

    def undone(self) -> dict[str, TrialEnd]:
        """Trials that were to be stopped when a sweep broke off, before their end was written down, where that is known."""
        return {}

    def on_start(self, suggestion: Suggestion) -> None:
        """Keep a trial's strategy."""
        self._strategies[suggestion.trial_id] = suggestion.choice["strategy"]["name"]

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Keep what is reported at a rung for those that come after.

        A trial that went on from a checkpoint reports some epochs anew: what stood of them and of later ones goes.
        """
        self._last[trial_id] = metrics
        for number, arrived in self._arrivals.items():
            if self.ladder.epochs[number] > metrics["epoch"]:
                arrived.pop(trial_id, None)
        rung, values = self._rung_of(metrics), self._values(metrics)
        if rung is not None and values is not None:
            self._arrivals.setdefault(rung, {})[trial_id] = values

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Forget what is no longer repeated."""
        self._last.pop(trial_id, None)

    def has_heard(self, trial_id: str, metrics: Mapping[str, Any]) -> bool:
        """Whether a report is the trial's last one, repeated as the trial did not know that it had been heard.

        An epoch that is trained anew takes other seconds, and is another report.
        """
        last = self._last.get(trial_id)
        return last is not None and all(name in metrics and metrics[name] == value for name, value in last.items())

    def _compared(self, trial_id: str, metrics: Mapping[str, Any]) -> int | None:
        """The rung at which a report's trial may be compared: one that enough others have reached, above its floor."""
        rung = self._rung_of(metrics)
        if rung is None or self._values(metrics) is None or len(self._others(rung, trial_id)) < LEAST_OTHERS:
            return None
        return rung if self.ladder.may_stop(self._strategies[trial_id], metrics["epoch"] + 1) else None

    def _others(self, rung: int, trial_id: str) -> dict[str, NDArray[np.float64]]:
        return {name: values for name, values in self._arrivals.get(rung, {}).items() if name != trial_id}

    def _rung_of(self, metrics: Mapping[str, Any]) -> int | None:
        """The rung that a report is of; a trial's last report is none, nor is that of a failure."""
        if metrics.get(FINAL) or "epoch" not in metrics:
            return None
        return self.ladder.rung_after(metrics["epoch"] + 1)

    def _values(self, metrics: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """What a report at a rung says of the objectives, all to be minimised; None where it lacks one."""
        values, _ = self._reported(metrics)
        return values if np.isfinite(values).all() else None

    def _reported(self, metrics: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return reported(metrics, self._objectives, [rung_name(objective) for objective in self._objectives])


class RuleStopping(Stopping):
    """Decides by a rule that sees one rung.

    A trial goes on besides while no trial of its strategy has been trained to its end, so that a strategy that starts
    slowly finishes at least once. The events of a log, heard in their order, lead to the same decisions.
    """

    def __init__(self, rule: StoppingRule, ladder: Ladder, objectives: Sequence[Objective], *, eta: int) -> None:
        """No trial has reached a rung.

        Args:
            rule: of the table `STOPPING_RULES`.
            ladder: where trials are compared.
            objectives: as in a trial's final report.
            eta: one in so many goes on where a rule counts.
        """
        super().__init__(ladder, objectives)
        self._rule, self._eta = rule, eta
        self._is_cost = tuple(objective.name in COSTS for objective in self._objectives)
        self._finished: set[str] = set()
        """Strategies of which a trial was trained to its end."""
        self._open: dict[str, TrialEnd] = {}
        """By trial, an end that is due until it is told."""

    def decide(self, trial_id: str, metrics: Mapping[str, Any]) -> TrialEnd | None:
        """How a trial that reports this ends here, by the rule and what has reached the rung."""
        rung, (values, errors) = self._compared(trial_id, metrics), self._reported(metrics)
        if rung is None or self._strategies[trial_id] not in self._finished:
            return None
        *others, point = self._without_timing({**self._others(rung, trial_id), trial_id: values})
        standing = Standing(
            values=point,
            errors=errors,
            others=np.array(others),
            is_cost=self._is_cost,
            eta=self._eta,
        )
        reason = self._rule(standing)
        return None if reason is None else TrialEnd.stopped(f"after epoch {self.ladder.epochs[rung]} it {reason}", rung)

    def undone(self) -> dict[str, TrialEnd]:
        """Those whose end is due."""
        return dict(self._open)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Decide as it was decided when the report came, from what had arrived before it."""
        super().on_report(trial_id, metrics)
        self._open.pop(trial_id, None)
        if (end := self.decide(trial_id, metrics)) is not None:
            self._open[trial_id] = end

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Note which strategies have a trial that was trained to its end; smaller adapters that were cut do not count."""
        super().on_end(trial_id, end)
        self._open.pop(trial_id, None)
        if end.kind == COMPLETED and trial_id in self._strategies:
            self._finished.add(self._strategies[trial_id])

    def _without_timing(self, values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The values by trial as rows, in which the trials of a strategy at a rung share the median of what was timed.

        Seconds differ with what else runs on the machine, often by more than hyperparameters make of them: a trial must
        not go on for having run alone.
        """
        rows = np.array(list(values.values()))
        timed = [place for place, objective in enumerate(self._objectives) if objective.name in TIMED]
        strategies = np.array([self._strategies[name] for name in values])
        for strategy in set(strategies):
            peers = strategies == strategy
            rows[np.ix_(peers, timed)] = np.median(rows[np.ix_(peers, timed)], axis=0)
        return rows
