"""The search: an Optuna study behind Ray Tune's searcher interface.

Ray's own OptunaSearch leaves trials with NaN or missing objectives running for ever, and tells partial results as if
they were complete. Here every Optuna trial ends as the sweep's records say: complete with all objectives finite,
pruned where it was stopped early, or failed, the last two with the reason.
"""

from __future__ import annotations

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
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from search_spaces import SearchSpace, strategies_of
from sweep.search.samplers import SearchPlan, SearchSampler
from sweep.trials.ends import UNFINISHED, TrialEnd, TrialListener

REASON: Final = "reason"
"""Attribute of a failed or pruned Optuna trial that says why it was."""
RUNG: Final = "rung"
"""Attribute of a pruned Optuna trial: the number of the rung at which the sweep stopped it."""
STATES: Final[Mapping[EndKind, TrialState]] = {STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}
"""What Optuna calls the end of a trial without values."""

DIRECTIONS: Final = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class OptunaSearcher(Searcher, TrialListener):  # type: ignore[misc]  # Ray ships no types
    """Suggests configurations by a search sampler, and tells Optuna how each trial ended.

    The first trials try every strategy once; the sampler takes over from there. At most `num_trials` are suggested.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        *,
        sampler: SearchSampler,
        num_trials: int,
        seed: int,
        strategies: Sequence[str] | None = None,
        hyperparameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Set up an empty study.

        Args:
            space: Module-level function of an Optuna trial.
            objectives: Each one's key in a trial's final report, and its direction.
            sampler: Of the table `SEARCH_SAMPLERS`.
            num_trials: How many configurations to suggest in all.
            seed: Seed of the sampler; one concurrent trial at a time gives the same suggestions again.
            strategies: Strategies to choose from; all of the space's where not given.
            hyperparameters: By strategy, values that the space does not suggest but takes.
        """
        self.objectives = tuple(objectives)
        super().__init__()  # told of metrics here, Tune would refuse the reports of epochs without evaluation
        self.strategies = tuple(strategies or strategies_of(space))
        self.num_trials = num_trials
        plan = SearchPlan(num_strategies=len(self.strategies), num_trials=num_trials, seed=seed)
        self.study = _create_study(self.objectives, sampler(plan))
        self._space = partial(
            space, strategies=self.strategies, **({"fixed": hyperparameters} if hyperparameters else {})
        )
        self._open: dict[str, Trial] = {}
        self._numbers: dict[str, int] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}

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
        """Tune's word does not say how a trial ended; `on_end` does."""

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Keep a trial's last report."""
        self._reports[trial_id] = metrics

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Tell Optuna how a trial ended; a trial that has ended already keeps its end."""
        trial, report = self._open.pop(trial_id, None), self._reports.pop(trial_id, {})
        if trial is not None and end.kind == COMPLETED:
            self.study.tell(trial, [float(report[one.name]) for one in self.objectives])
        elif trial is not None:
            trial.set_user_attr(REASON, end.reason)
            if end.rung is not None:
                trial.set_user_attr(RUNG, end.rung)
            self.study.tell(trial, state=STATES[end.kind])

    def finish(self) -> None:
        """End the study: trials that never reported their end have failed."""
        for trial_id in list(self._open):
            self.on_end(trial_id, UNFINISHED)

    def record(self, trial_id: str) -> FrozenTrial:
        """Optuna's record of a trial: number, parameters by name ("lora/rank"), state, values, reason of an early end.

        Raises:
            KeyError: no trial of that id was suggested.
        """
        return self.study.get_trials(deepcopy=False)[self._numbers[trial_id]]

    def save(self, checkpoint_path: str) -> None:
        """Write the study and the open trials; Ray calls this when it takes a snapshot of the sweep."""
        Path(checkpoint_path).write_bytes(pickle.dumps((self.study, self._open, self._numbers, self._reports)))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from what `save` wrote."""
        kept = pickle.loads(Path(checkpoint_path).read_bytes())
        self.study, self._open, self._numbers, self._reports = kept


def _create_study(objectives: Sequence[Objective], sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=[DIRECTIONS[one.direction] for one in objectives], sampler=sampler)
