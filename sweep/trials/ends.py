"""How a trial ends, and what of a sweep hears of it. Free of Ray, so that records need not import it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from sweep.trials.earlier import EarlierSweep
from sweep.trials.suggestions import Suggestion

FINAL: Final = "final"
"""Key of a trial's last report: true once training and evaluation are both done."""
FAILURE: Final = "failure"
"""Key of a report that says why its trial has failed where the trial's process does not fail with it."""
LOST: Final = "lost"
"""Key of such a report: true where the configuration is not at fault."""
BREAKS: Final = "breaks"
"""Key of such a report: true where every further trial would fail so; it ends the sweep, and not its trial."""


class EvaluatorLostError(RuntimeError):
    """Nothing is left that could score the adapter of any trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEnd:
    """How a trial ended.

    Attributes:
        kind: `completed`, `stopped` or `failed`.
        reason: why it was stopped or failed; None of a completed trial.
        rung: 0-based number of the rung at which it was stopped; None of every other end.
        lost: it failed by no fault of its configuration: its process, machine or evaluation was lost once too often.
    """

    kind: EndKind
    reason: str | None = None
    rung: int | None = None
    lost: bool = False

    def __post_init__(self) -> None:
        sound = (self.kind == COMPLETED) == (self.reason is None) and (self.kind == STOPPED) == (self.rung is not None)
        if not sound or (self.lost and self.kind != FAILED):
            raise ValueError(
                "`TrialEnd` must have a reason unless it is completed, and a rung only where it is stopped, "
                f"but got {self.kind!r} with reason {self.reason!r} and rung {self.rung!r}. "
                "Make it by completed(), stopped() or failed()."
            )

    @classmethod
    def completed(cls) -> Self:
        """The trial gave every objective at the end of its training."""
        return cls(kind=COMPLETED)

    @classmethod
    def stopped(cls, reason: str, rung: int) -> Self:
        """The sweep ended the trial at a rung, before the end of its training."""
        return cls(kind=STOPPED, reason=reason, rung=rung)

    @classmethod
    def failed(cls, reason: str, *, lost: bool = False) -> Self:
        """The trial gave no result, by its configuration's fault unless it was lost."""
        return cls(kind=FAILED, reason=reason, lost=lost)


ENDED_EARLY: Final = TrialEnd.failed("the trial ended before its final report")


def end_of(last_report: Mapping[str, Any], objectives: Iterable[str], *, stopped: TrialEnd | None = None) -> TrialEnd:
    """How a trial ended whose process was not lost, by its last report.

    Args:
        last_report: empty where the trial never reported.
        objectives: names of what a completed trial must have, finite.
        stopped: how the trial scheduler stopped it, if it did. A trial that had failed, or had reached its own end, was
            beyond being stopped.

    Returns:
        Completed only by a final report that holds all objectives.
    """
    if FAILURE in last_report:
        return TrialEnd.failed(str(last_report[FAILURE]), lost=bool(last_report.get(LOST)))
    if not last_report.get(FINAL):
        return stopped or ENDED_EARLY
    lacks = next((lack for name in objectives if (lack := _lacks(last_report, name))), None)
    return TrialEnd.failed(lacks) if lacks else TrialEnd.completed()


def _lacks(report: Mapping[str, Any], name: str) -> str | None:
    if name not in report:
        return f"`{name}` must be in the final report, but got none"
    return None if math.isfinite(report[name]) else f"`{name}` must be finite, but got {report[name]}"


class TrialListener:
    """Hears of every trial, in the process that started the sweep; by itself it does nothing.

    A trial is started once and ended once; reports, cuts and retries come in between. A trial that is tried again may
    report an epoch anew: then the new report, and what follows it, takes the place of the old. The same calls in the
    same order, read from the event log, bring a listener to the same state.
    """

    def on_earlier(self, sweep: EarlierSweep) -> None:
        """An earlier sweep was read, before the first trial of this one."""

    def on_start(self, suggestion: Suggestion) -> None:
        """A trial begins with what the search sampler chose."""

    def on_place(self, trial_id: str, node: str, address: str) -> None:
        """A trial has a process, be it the first or one in which it goes on.

        Args:
            trial_id: the trial.
            node: Ray's id of the node where it runs; of a group, its first process, which trains nothing itself.
            address: of that node.
        """

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """A trial finished an epoch; `metrics` are plain numbers, strings and booleans."""

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """A trial's training yielded a smaller adapter too; `choice` and `metrics` are as of a trial of its own.

        It ends as a trial does: by `on_end`.

        Args:
            cut_id: the adapter's own name, such as `TRIAL-rank2`.
            trial_id: the trial whose training yielded it.
            choice: as of a trial of its own.
            metrics: likewise.
        """

    def on_retry(self, trial_id: str, reason: str) -> None:
        """A trial lost its process or machine, and is tried again from its last checkpoint, or else from its start."""

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """A trial, or a smaller adapter of its training, is over."""

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """The un-adapted base model was scored; empty where that failed."""
