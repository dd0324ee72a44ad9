"""What Tune tells of its trials, and the ends that it knows of them, told once to everyone in the sweep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS

from sweep.interrupts import raise_if_interrupted
from sweep.trials.ends import BREAKS, FAILURE, FINAL, TrialEnd, TrialListener, end_of
from sweep.trials.full_disks import full_disk, is_full
from sweep.trials.memory_kills import MEMORY, KernelKills, kernel_kill, out_of_memory
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.suggestions import Suggestion
from trainables.cuts import CUTS, cut_name

TUNES_OWN: Final = frozenset(AUTO_RESULT_KEYS) | {
    "config",
    "done",
    "trial_id",
    "checkpoint_dir_name",
    "should_checkpoint",
}


class Relay(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Turns Tune's callbacks into the sweep's events; the one place that decides how a trial ended."""

    def __init__(
        self,
        listeners: Sequence[TrialListener],
        objectives: Sequence[str],
        trial_scheduler: TrialScheduler,
        *,
        max_retries: int = 0,
        losses: Mapping[str, int] | None = None,
        kernel_kills: Callable[[], int] | None = None,
        on_break: Callable[[Collection[str]], None] = lambda running: None,
        before_start: Callable[[str], None] = lambda trial_id: None,
        place_of: Callable[[Any], tuple[str, str] | None] = lambda trial: None,
    ) -> None:
        """Tell `listeners`, in their order.

        Args:
            listeners: know no more than the event log.
            objectives: names of what a completed trial must have.
            trial_scheduler: knows which trials it has stopped.
            max_retries: how often a trial that loses its process or machine is tried again. One that finds a disk full
                so often ends the sweep, with which it can go on when there is room.
            losses: how often each trial of the event log that has not ended lost its process or machine before.
            kernel_kills: how many processes the kernel has ended for want of memory since it was last asked.
            on_break: called with the trials that have a process when the sweep breaks off, after which Tune ends these.
            before_start: called with each trial that has got a process, before that process works on it.
            place_of: the id and address of the node where a trial of Tune's has its process, if they can be had.
        """
        self._before_start, self._place_of = before_start, place_of
        self.on_break = on_break
        self._kernel_kills = kernel_kills or KernelKills()
        self._listeners, self._objectives, self._trial_scheduler = tuple(listeners), tuple(objectives), trial_scheduler
        self._max_retries, self._losses = max_retries, Counter(losses or {})
        self._found_full: Counter[str] = Counter()
        """How often each trial found a disk full in this process."""
        self.broken: Exception | None = None
        """What ends the sweep: a full disk, what every trial would fail by, or an error of a listener, which Tune might take
        for a loss of the trial's machine."""
        self._started: set[str] = set(self._losses)
        self.running: set[str] = set()
        """Trials that have a process."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks for its own restore; the listeners stay in this process."""
        return Relay, ((), self._objectives, TrialScheduler())

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        raise_if_interrupted()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        suggestion = Suggestion.of_config(trial.config)
        self._before_start(suggestion.trial_id)
        self.running.add(suggestion.trial_id)
        self._ensure_started(suggestion)
        if place := self._place_of(trial):
            self._tell("on_place", suggestion.trial_id, *place)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        suggestion = Suggestion.of_config(trial.config)
        trial_id = suggestion.trial_id
        if FAILURE in result:
            self._break_where_all_would_fail(result)
            return
        if not self._trial_scheduler.has_heard(trial_id, result):
            self._tell("on_report", trial_id, own_values(result))
        for label, cut in result.get(CUTS, {}).items():
            choice, metrics = {**suggestion.choice, "strategy": cut["strategy"]}, own_values(cut)
            self._tell("on_cut", cut_name(trial_id, label), trial_id, choice, metrics)
            self._tell("on_end", cut_name(trial_id, label), end_of({**metrics, FINAL: True}, self._objectives))

    def _break_where_all_would_fail(self, result: Mapping[str, Any]) -> None:
        if result.get(BREAKS):
            self._break(RuntimeError(str(result[FAILURE])))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        suggestion = Suggestion.of_config(trial.config)
        stopped = self._trial_scheduler.stopped(suggestion.trial_id)
        self._end(suggestion, end_of(trial.last_result, self._objectives, stopped=stopped))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's trial lost its process or machine: what is the trial's own fault, it reports."""
        suggestion = Suggestion.of_config(trial.config)
        reason = kernel_kill(self._kernel_kills()) or root_message(_recorded_error(trial))
        self.running.discard(suggestion.trial_id)
        counted = self._found_full if is_full(reason) else self._losses
        counted[suggestion.trial_id] += 1
        losses = counted[suggestion.trial_id]
        self._ensure_started(suggestion)
        if losses <= self._max_retries:
            self._tell("on_retry", suggestion.trial_id, reason)
        elif is_full(reason):
            self._break(full_disk(reason))
        else:
            again = f" (and {losses - 1} times before)" if losses > 1 else ""
            self._end(suggestion, TrialEnd.failed(f"{reason}{again}", lost=not reason.startswith(MEMORY)))

    def _ensure_started(self, suggestion: Suggestion) -> None:
        """Tune does not tell the start of a trial whose process died before it; a trial that is tried again has started."""
        if suggestion.trial_id not in self._started:
            self._started.add(suggestion.trial_id)
            self._tell("on_start", suggestion)

    def _end(self, suggestion: Suggestion, end: TrialEnd) -> None:
        self.running.discard(suggestion.trial_id)
        self._ensure_started(suggestion)
        self._tell("on_end", suggestion.trial_id, end)

    def _tell(self, event: str, *values: Any) -> None:
        """Tell every listener, unless one of them has failed."""
        if self.broken is not None:
            raise self.broken
        for listener in self._listeners:
            try:
                getattr(listener, event)(*values)
            except Exception as error:  # noqa: BLE001  # raised again
                self._break(error)

    def _break(self, error: Exception) -> NoReturn:
        self.broken = error
        self.on_break(self.running)
        raise error


def own_values(result: Mapping[str, Any]) -> dict[str, Any]:
    """A report's plain values without what Ray Tune adds to each."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in result.items()}
    return {
        name: value
        for name, value in plain.items()
        if name not in TUNES_OWN and isinstance(value, (bool, int, float, str))
    }


def _recorded_error(trial: Any) -> str:
    """What Tune wrote of a failure; it is in the trial's own folder at once, and in the storage, where Tune looks, later."""
    file = Path(trial.error_file or "")
    return (file.read_text().strip() if file.is_file() else "") or "the trial's process died without a message"


def root_message(trace: str) -> str:
    """The message of the exception that a printed trace, Ray's included, ends with; an empty one has none."""
    if exhausted := out_of_memory(trace):
        return exhausted
    raised = [
        line.strip() for line in trace.splitlines() if re.match(r"^\s*[\w.]*(Error|Exception|Interrupt)\b.*:", line)
    ]
    *_, last = raised or trace.strip().splitlines() or ["a process died without a message"]
    return re.sub(r"^(?:[a-z_]\w*\.)+(?=\w)", "", last)
