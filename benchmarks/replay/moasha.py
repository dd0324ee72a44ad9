"""Syne Tune's MOASHA as it is published, as a trial scheduler of the replay, beside the engine's own.

It is asked as Syne Tune's own tuner asks it, and is told the same values as the engine's rules: all to be minimised, costs
as logarithms. A known fault of its version 0.16.0: where it ranks the trials of a rung, `NonDominatedPriority` gives their
indices in order of merit, and the bracket reads these as each trial's priority. So a newcomer goes on where the worst trial
of the rung was among the first to reach it, whatever the newcomer shows.

Its package is no dependency: `python -m pip install --no-deps syne-tune==0.16.0` suffices, as the rest of what it needs is
for its other schedulers.

Source:
    Schmucker et al. 2021, Multi-objective asynchronous successive halving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final

from analysis.front.pareto import Objective
from sweep.search.ladder import Ladder
from sweep.search.stopping import Stopping
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

MOASHA: Final = "moasha"
"""Its name beside the engine's trial schedulers."""
INSTALL: Final = "python -m pip install --no-deps syne-tune==0.16.0"
EPOCHS: Final = "epochs"


def is_installed() -> bool:
    """Whether its package is there."""
    return find_spec("syne_tune") is not None


class MoashaStopping(Stopping):
    """Decides by MOASHA, with its defaults but for the rungs, which are those of the ladder.

    Unlike the engine's own, it compares a trial with as few as one other, and keeps no strategy's trials for the end.
    """

    def __init__(self, ladder: Ladder, objectives: Sequence[Objective], *, eta: int, num_epochs: int) -> None:
        """No trial has reached a rung.

        Args:
            ladder: where trials are compared; its first rung and `eta` give MOASHA's.
            objectives: as in a trial's final report.
            eta: one in so many goes on.
            num_epochs: of a whole training.

        Raises:
            ValueError: its package is not installed.
        """
        if not is_installed():
            raise ValueError(f"The trial scheduler {MOASHA!r} must have Syne Tune. Install it: {INSTALL}")
        from syne_tune.optimizer.schedulers.multiobjective import moasha

        super().__init__(ladder, objectives)
        self._names = [objective.name for objective in objectives]
        self._published = moasha.MOASHA(
            config_space={},  # the engine's sampler draws configurations, at random as MOASHA would
            metrics=self._names,
            time_attr=EPOCHS,
            max_t=num_epochs,
            grace_period=ladder.epochs[0],
            reduction_factor=eta,
            random_seed=0,
        )
        self._trials: dict[str, Any] = {}

    def on_start(self, suggestion: Suggestion) -> None:
        """Add the trial to the rungs."""
        from syne_tune.backend.trial_status import Trial

        super().on_start(suggestion)
        trial = Trial(suggestion.number, dict(suggestion.choice), datetime.fromtimestamp(0, UTC))
        self._trials[suggestion.trial_id] = trial
        self._published.on_trial_add(trial)

    def decide(self, trial_id: str, metrics: Mapping[str, Any]) -> TrialEnd | None:
        """How a trial that reports this ends here; None: it goes on. MOASHA keeps the report: it is to be asked once."""
        rung, values = self._rung_of(metrics), self._values(metrics)
        if rung is None or values is None:
            return None
        result = {EPOCHS: self.ladder.epochs[rung], **dict(zip(self._names, values.tolist(), strict=True))}
        if self._published.on_trial_result(self._trials[trial_id], result) != "STOP":
            return None
        return TrialEnd.stopped(f"after epoch {self.ladder.epochs[rung]} MOASHA stops it", rung)
