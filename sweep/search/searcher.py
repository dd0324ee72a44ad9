"""The search sampler: an Optuna study behind Ray Tune's searcher interface.

Ray's own OptunaSearch leaves trials with NaN or missing objectives running for ever, and tells partial results as if
they were complete. Here every Optuna trial ends complete with all objectives finite, or failed with the reason.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher

from analysis.front.pareto import Objective
from search_spaces import SearchSpace, strategies_of
from sweep.search.samplers import SEARCH_SAMPLERS

FINAL: Final = "final"
"""Key of a trial's last report: true once training and evaluation are both done."""
FAILURE: Final = "failure"
"""Key of a report that says why its trial has failed where the trial's process does not fail with it."""
REASON: Final = "reason"
"""Attribute of a failed Optuna trial that says why it failed."""

DIRECTIONS: Final = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class OptunaSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Suggests configurations by a search sampler, and tells Optuna how each trial ended.

    The first trials try every strategy once; the sampler takes over from there. At most `num_trials` are suggested.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        *,
        num_trials: int,
        seed: int,
        strategies: Sequence[str] | None = None,
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
        sampler: str = "tpe",
    ) -> None:
        """Set up an empty study.

        Args:
            space: Module-level function of an Optuna trial.
            objectives: Each one's key in a trial's final report, and its direction.
            num_trials: How many configurations to suggest in all.
            seed: Seed of the sampler; one concurrent trial at a time gives the same suggestions again.
            strategies: Strategies to choose from; all of the space's where not given.
            hyperparameters: By strategy, values that the space does not suggest but takes.
            sampler: Name of the search sampler in its table.
        """
        self.objectives = tuple(objectives)
        super().__init__()  # told of metrics here, Tune would refuse the reports of epochs without evaluation
        self.strategies = tuple(strategies or strategies_of(space))
        self.num_trials = num_trials
        self.study = _create_study(self.objectives, SEARCH_SAMPLERS[sampler](len(self.strategies), num_trials, seed))
        self._space = partial(
            space, strategies=self.strategies, **({"fixed": hyperparameters} if hyperparameters else {})
        )
        self._open: dict[str, Trial] = {}
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's configuration, or Ray's FINISHED once `num_trials` have been suggested."""
        number = len(self.study.get_trials(deepcopy=False))
        if number >= self.num_trials:
            return str(Searcher.FINISHED)
        if number < len(self.strategies):
            self.study.enqueue_trial({"strategy": self.strategies[number]})
        trial = self.study.ask()
        trial.set_user_attr("trial_id", trial_id)
        self._open[trial_id] = trial
        self._numbers[trial_id] = trial.number
        return self._space(trial)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended: complete only by a final report whose objectives are all finite."""
        reason = "the trial raised an error" if error else _lacking(result or {}, self.objectives)
        if reason is not None:
            self.fail(trial_id, reason)
        elif result is not None and trial_id in self._open:
            self.study.tell(self._open.pop(trial_id), [float(result[one.name]) for one in self.objectives])

    def fail(self, trial_id: str, reason: str) -> None:
        """Tell Optuna that a trial failed, and why; a trial that has ended already keeps its end."""
        trial = self._open.pop(trial_id, None)
        if trial is not None:
            trial.set_user_attr(REASON, reason)
            self.study.tell(trial, state=TrialState.FAIL)

    def finish(self) -> None:
        """End the study: trials that never reported their end have failed."""
        for trial_id in list(self._open):
            self.fail(trial_id, "the sweep ended before the trial did")

    def record(self, trial_id: str) -> FrozenTrial:
        """Optuna's record of a trial: number, parameters by name ("lora/rank"), state, values, reason of failure.

        Raises:
            KeyError: no trial of that id was suggested.
        """
        return self.study.get_trials(deepcopy=False)[self._numbers[trial_id]]

    def save(self, checkpoint_path: str) -> None:
        """Write the study and the open trials; Ray calls this when it takes a snapshot of the sweep."""
        Path(checkpoint_path).write_bytes(pickle.dumps((self.study, self._open, self._numbers)))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        self.study, self._open, self._numbers = pickle.loads(Path(checkpoint_path).read_bytes())


def _lacking(result: Mapping[str, Any], objectives: Sequence[Objective]) -> str | None:
    """Why a trial's last report does not make it complete; nothing where it does."""
    if FAILURE in result:
        return str(result[FAILURE])
    if not result.get(FINAL):
        return "the trial ended before its final report"
    for name in (one.name for one in objectives):
        if name not in result:
            return f"`{name}` must be in the final report, but got none"
        if not math.isfinite(result[name]):
            return f"`{name}` must be finite, but got {result[name]}"
    return None


def _create_study(objectives: Sequence[Objective], sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=[DIRECTIONS[one.direction] for one in objectives], sampler=sampler)
