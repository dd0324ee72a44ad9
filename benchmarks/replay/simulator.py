"""A search on a simulated clock, by the very searcher, samplers and stopping decisions of the engine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ray.tune.search import Searcher

from benchmarks.replay.moasha import MOASHA, MoashaStopping
from benchmarks.replay.problems import NUM_EPOCHS, OBJECTIVES, SPACE, Problem, Stage, Training
from search_spaces import SEARCH_SPACES
from sweep.config import SearchConfig
from sweep.search.gain_stopping import make_stopping
from sweep.search.plan import SearchPlan
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.search.stopping import Stopping
from sweep.trials.ends import TrialEnd, TrialListener, end_of
from sweep.trials.suggestions import Suggestion

SUGGESTIONS: Final = 2
"""Trials that may be suggested for each training of the pool: those that nothing is left to answer cost nothing."""
CHOOSING_STRATEGIES: Final = ("front", "tpe")
"""Samplers that choose the strategy by the results: they would ask for the one that is best until no suggestion is left."""
NOTHING_LEFT: Final = TrialEnd.failed("the pool has no further training of this strategy", lost=True)
"""Not by the configuration's fault: samplers must not learn from it."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A way to search, the seed of one search by it, and the share of the pool's hypervolume at which it ends."""

    sampler: str
    scheduler: str
    num_workers: int
    seed: int
    enough: float = 0.99


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A trial that came to its end.

    Attributes:
        work_s: seconds of all workers together since the start.
        share: of the whole pool's hypervolume, which it and those before it have.
    """

    work_s: float
    share: float


@dataclass(order=True)
class _Running:
    """A trial under way; `at_s` is when it reports next."""

    at_s: float
    number: int
    trial_id: str = field(compare=False)
    training: Training = field(compare=False)
    stages: list[Stage] = field(compare=False)


class Simulator:
    """One search over a problem."""

    def __init__(self, problem: Problem, search: Search) -> None:
        """Nothing has started."""
        self._problem, self._search = problem, search
        self._answer, self._is_left = problem.answers()
        self._stopping = self._make_stopping(search.scheduler)
        self._ladder = self._stopping.ladder
        self._searcher: OptunaSearcher | None = None
        """The one that made the last suggestion, if that was answered as it was made; it has heard of all since."""
        self._log: list[Callable[[TrialListener], None]] = []
        self._queue: list[_Running] = []
        self.finished: list[Finished] = []
        self._values: list[list[float]] = []
        self.share, self.num_stopped, self.num_trials = 0.0, 0, 0

    def _make_stopping(self, scheduler: str) -> Stopping:
        """What decides at rungs: the engine's, or MOASHA at the same rungs."""
        config = SearchConfig() if scheduler == MOASHA else SearchConfig(scheduler=scheduler)
        ladder, eta = config.ladder(NUM_EPOCHS), config.rungs.eta
        if scheduler == MOASHA:
            return MoashaStopping(ladder, OBJECTIVES, eta=eta, num_epochs=NUM_EPOCHS)
        return make_stopping(scheduler, self._plan_with, ladder, OBJECTIVES, eta=eta, num_epochs=NUM_EPOCHS)

    def _plan_with(self, trial_id: str, report: Mapping[str, Any]) -> SearchPlan:
        return self.searcher().plan_with(trial_id, report)

    def run(self) -> None:
        """Until nearly all is found, or every trial has ended and nothing more is suggested."""
        for _ in range(self._search.num_workers):
            self._start(0.0)
        while self._queue and self.share < self._search.enough:
            self._report(heapq.heappop(self._queue))

    def searcher(self) -> OptunaSearcher:
        """The engine's searcher, which has heard of what was done so far.

        A suggestion is answered by a neighbour where there is no training of just that configuration. Then a new searcher
        hears of the neighbour, as from a log: it would learn from parameters that were never trained otherwise.
        """
        if self._searcher is None:
            self._searcher = self._new_searcher()
            for event in self._log:
                event(self._searcher)
        return self._searcher

    def _new_searcher(self) -> OptunaSearcher:
        return OptunaSearcher(
            SEARCH_SPACES[SPACE],
            OBJECTIVES,
            sampler=SEARCH_SAMPLERS[self._search.sampler],
            num_trials=SUGGESTIONS * len(self._problem.pool),
            seed=self._search.seed,
            strategies=self._problem.strategies,
            known=self._problem.known,
            excess=self._excess,
        )

    def _excess(self, choice: Mapping[str, Any]) -> Mapping[str, float]:
        """A strategy of which the pool has no training left is over a limit; samplers that no results lead lose a turn instead."""
        if self._search.sampler not in CHOOSING_STRATEGIES or self._is_left(choice["strategy"]["name"]):
            return {}
        return {"trainings_taken": 1.0}

    def _tell(self, event: Callable[[TrialListener], None]) -> None:
        self._log.append(event)
        event(self._stopping)
        if self._searcher is not None:
            event(self._searcher)

    def _begin(self, suggestion: Suggestion) -> None:
        self._tell(lambda listener: listener.on_start(suggestion))

    def _start(self, now_s: float) -> None:
        """Give a free worker the next trial that the problem can answer."""
        searcher = self.searcher()
        while any(map(self._is_left, self._problem.strategies)) and (config := searcher.suggest("")) not in (
            None,
            Searcher.FINISHED,
        ):
            assert isinstance(config, dict)
            suggestion = Suggestion.of_config(config)
            training = self._answer(suggestion.choice["strategy"]["name"], suggestion.params)
            if training is not None:
                if training.params != suggestion.params:
                    self._searcher = None
                self._begin(replace(suggestion, params=training.params))
                stages = [stage for stage in training.stages[:-1] if self._ladder.epochs] + [training.stages[-1]]
                self._push(_Running(now_s, suggestion.number, suggestion.trial_id, training, stages), 0.0)
                return
            self._begin(suggestion)
            self._end(suggestion.trial_id, NOTHING_LEFT)

    def _push(self, running: _Running, trained_s: float) -> None:
        due = running.stages[0]
        running.at_s += due.training_s - trained_s + due.evaluation_s
        heapq.heappush(self._queue, running)

    def _report(self, running: _Running) -> None:
        """Let a trial report its stage, and stop, end or go on."""
        stage, trial_id = running.stages.pop(0), running.trial_id
        stopped = self._stopping.decide(trial_id, stage.report)
        if "epoch" in stage.report:
            self._tell(lambda listener: listener.on_report(trial_id, stage.report))
        if stopped is None and running.stages:
            self._push(running, stage.training_s)
            return
        end = end_of(stage.report, [objective.name for objective in OBJECTIVES], stopped=stopped)
        self._end(trial_id, end)
        self.num_trials += 1
        self.num_stopped += stopped is not None
        if end == TrialEnd.completed():
            work_s = running.at_s * self._search.num_workers
            self._values.append(running.training.values)
            self.share = self._problem.volume(self._values)
            self.finished.append(Finished(work_s=work_s, share=self.share))
        self._start(running.at_s)

    def _end(self, trial_id: str, end: TrialEnd) -> None:
        self._tell(lambda listener: listener.on_end(trial_id, end))


def hours_to(finished: Sequence[Finished], share: float) -> float | None:
    """GPU-hours until finished trials had a share of the whole pool's hypervolume; None where they never had."""
    return next((trial.work_s / 3600 for trial in finished if trial.share >= share), None)
