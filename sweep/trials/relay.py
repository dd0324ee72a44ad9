"""What Tune tells of its trials, and the ends that it knows of them, told once to everyone in the sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS

from sweep.trials.ends import FAILURE, TrialEnd, TrialListener, end_of
from sweep.trials.runtime import out_of_memory
from sweep.trials.scheduling import TrialScheduler
from trainables.trial import CUTS, cut_name

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
        self, listeners: Sequence[TrialListener], objectives: Sequence[str], scheduler: TrialScheduler
    ) -> None:
        """Tell `listeners`, in their order.

        Args:
            listeners: Heard of nothing yet.
            objectives: Names of what a completed trial must have.
            scheduler: Knows which trials it has stopped.
        """
        self._listeners, self._objectives, self._scheduler = tuple(listeners), tuple(objectives), scheduler
        self._started: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its callbacks for its own restore; the listeners stay in this process."""
        return Relay, ((), self._objectives, TrialScheduler())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ensure_started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for listener in self._listeners if FAILURE not in result else ():
            listener.on_report(trial.trial_id, own_values(result))
            for label, cut in result.get(CUTS, {}).items():
                choice = {**trial.config, "strategy": cut["strategy"]}
                listener.on_cut(cut_name(trial.trial_id, label), trial.trial_id, choice, own_values(cut))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        stopped = self._scheduler.stopped(trial.trial_id)
        self._end(trial, stopped or end_of(trial.last_result, self._objectives))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, TrialEnd.failed(root_message(_recorded_error(trial))))

    def _ensure_started(self, trial: Any) -> None:
        """Tune does not tell the start of a trial whose process died before it."""
        if trial.trial_id not in self._started:
            self._started.add(trial.trial_id)
            for listener in self._listeners:
                listener.on_start(trial.trial_id, trial.config)

    def _end(self, trial: Any, end: TrialEnd) -> None:
        self._ensure_started(trial)
        for listener in self._listeners:
            listener.on_end(trial.trial_id, end)


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
    return file.read_text() if file.is_file() else "the trial's process died without a message"


def root_message(trace: str) -> str:
    """The message of the exception that a printed trace, Ray's included, ends with."""
    if exhausted := out_of_memory(trace):
        return exhausted
    raised = [
        line.strip() for line in trace.splitlines() if re.match(r"^\s*[\w.]*(Error|Exception|Interrupt)\b.*:", line)
    ]
    last = raised[-1] if raised else trace.strip().splitlines()[-1]
    return re.sub(r"^(?:[a-z_]\w*\.)+(?=\w)", "", last)
