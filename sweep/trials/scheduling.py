"""The trial scheduler: which trials go on to the next rung, as Ray Tune asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from sweep.search.stopping import Stopping
from sweep.trials.ends import TrialEnd


class TrialScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray ships no types
    """Stops no trial; what does, overrides `on_trial_result` and returns `self.stop(...)` where a trial is to end.

    Tune itself does not tell a trial that was stopped from one that ended, so the scheduler remembers whom it stopped.
    """

    def __init__(self) -> None:
        """Nothing was stopped yet."""
        super().__init__()
        self._stopped: dict[str, TrialEnd] = {}

    def stop(self, trial_id: str, reason: str, rung: int) -> str:
        """Decide that a trial ends here.

        Args:
            trial_id: the sweep's name of the trial whose report Tune is telling of: `trial.config["trial_id"]`.
            reason: why, for the records.
            rung: 0-based number of the rung that the trial has reached.

        Returns:
            Tune's word for it, to be returned by `on_trial_result`.
        """
        self._stopped[trial_id] = TrialEnd.stopped(reason, rung)
        return str(self.STOP)

    def stopped(self, trial_id: str) -> TrialEnd | None:
        """How a trial ended that this scheduler stopped; None of any other."""
        return self._stopped.get(trial_id)

    def has_heard(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a result is the trial's last one, repeated: nothing is decided anew then, and nobody is told again."""
        return False


class RungScheduler(TrialScheduler):
    """Stops trials where `Stopping` says so, which must hear of the sweep's trials as one of its listeners.

    Tune asks before the report is told to anyone, so that what has arrived at a rung is what came before.
    """

    def __init__(self, stopping: Stopping) -> None:
        """Ask `stopping`."""
        super().__init__()
        self._stopping = stopping

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tune's word for whether a trial goes on after this report."""
        trial_id = trial.config["trial_id"]
        if self.has_heard(trial_id, result):
            return str(self.CONTINUE)
        end = self._stopping.decide(trial_id, result)
        if end is None or end.reason is None or end.rung is None:
            return str(self.CONTINUE)
        return self.stop(trial_id, end.reason, end.rung)

    def has_heard(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a result is the trial's last one, repeated."""
        return self._stopping.has_heard(trial_id, result)
