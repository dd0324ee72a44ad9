"""The search: an Optuna study behind Ray Tune's searcher interface.

Ray's own OptunaSearch leaves trials with NaN or missing objectives running for ever, and tells partial results as if
they were complete. Here every Optuna trial ends as the sweep's records say: complete with all objectives finite,
pruned where it was stopped early or failed by its configuration's fault, or failed where it was lost, with the reason.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import optuna
from optuna.distributions import distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher

from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from search_spaces import SearchSpace, published, strategies_of
from sweep.records.garbage import without_collecting
from sweep.search.earlier import observations, proposals
from sweep.search.history import History
from sweep.search.logged_trials import logged_trial
from sweep.search.plan import STRATEGY, SearchPlan, Values
from sweep.search.samplers import UNLED, SearchSampler
from sweep.trials.earlier import EarlierSweep
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

REASON: Final = "reason"
"""Attribute of a failed or pruned Optuna trial that says why it was."""
WORKS: Final = "works"
"""Name of the constraint that a configuration breaks if its trial failed by its fault: so samplers count it among the
bad ones. Trials in Optuna's own state FAIL they do not see at all."""
BROKEN: Final = 1.0
RUNG: Final = "rung"
"""Attribute of a pruned Optuna trial: the number of the rung at which the sweep stopped it."""
STATES: Final[Mapping[EndKind, TrialState]] = {STOPPED: TrialState.PRUNED, FAILED: TrialState.PRUNED}
"""Optuna's state of a trial that ended without values. A trial that was lost says nothing of its configuration, and is
FAIL there."""

MOST_REJECTED: Final = 200
"""The most configurations in a row that may be over a limit."""

MOST_CHOICES: Final = 5_000
"""Of so many parameters what the space makes is kept: of all that was tried, and of the candidates of a few suggestions."""

ODD_STEP: Final = 0x9E3779B1
"""Steps of an odd width visit each of 2^32 places once; this one, the golden ratio's, leaves no order for the eye."""

DIRECTIONS: Final = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


class OptunaSearcher(Searcher, TrialListener):  # type: ignore[misc]  # Ray ships no types
    """Suggests configurations by a search sampler, and tells Optuna how each trial ended.

    The first trials try every strategy once, at the learning rate that others have published where one is known, the next
    ones what earlier sweeps propose; the sampler takes over from there. At most `num_trials` are suggested, and each again
    where its process or machine was lost. A searcher that hears the events of a broken sweep from its log, and then
    `resume`, goes on where that one was: what it suggests depends on the seed, the number of the trial, how many there will
    be, and the results before it alone, those of earlier sweeps among them.
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
        excess: Callable[[Mapping[str, Any]], Mapping[str, float]] = lambda choice: {},
        known: Callable[[Mapping[str, Any]], Mapping[str, float]] = lambda choice: {},
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Set up an empty study.

        Args:
            space: module-level function of an Optuna trial.
            objectives: each one's key in a trial's final report, and its direction.
            sampler: of the table `SEARCH_SAMPLERS`.
            num_trials: how many configurations to suggest in all.
            seed: seed of the sampler; one concurrent trial at a time gives the same suggestions again.
            strategies: strategies to choose from; all of the space's where not given.
            hyperparameters: by strategy, values that the space does not suggest but takes.
            is_over: whether no further trial is to begin.
            excess: by limit, by how much a configuration is over it; one with a value above 0 is not tried.
            known: by objective, the costs of a configuration that are known before it is tried.
        """
        self.objectives = tuple(objectives)
        super().__init__()  # told of metrics here, Tune would refuse the reports of epochs without evaluation
        self.strategies, self.num_trials = tuple(strategies or strategies_of(space)), num_trials
        self._sampler, fixed = sampler, hyperparameters or {}
        self._excess, self._known, self._is_over = excess, known, is_over
        self._plan = replace(
            SearchPlan.of(space, self.strategies, fixed, num_trials=num_trials, seed=seed),
            objectives=self.objectives,
            known=self._known_costs,
            is_within=lambda strategy, values: max(excess(self._choice(strategy, values)).values(), default=0.0) <= 0,
            is_led=sampler not in UNLED,
        )
        self._history, self._study = History(self.objectives), _create_study(self.objectives)
        self._suggested_by = space
        self._space = partial(space, strategies=self.strategies, **({"fixed": fixed} if fixed else {}))
        self._choices: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        self._open: dict[str, Suggestion] = {}
        self._waiting: deque[Suggestion] = deque()
        self._taken: set[int] = set()
        """Numbers of the suggestions that were made; those of a broken sweep may have gaps."""
        self._optunas: dict[str, int] = {}
        """Optuna's own number of each trial; Optuna counts in the order of the log."""
        self._reports: dict[str, Mapping[str, Any]] = {}
        self._earlier: list[EarlierSweep] = []
        self._told: dict[str, tuple[Suggestion, Mapping[str, Any]]] = {}
        """Trials of the log that Optuna has not heard of yet, and what has become of each."""

    @property
    def study(self) -> optuna.Study:
        """Optuna's study of all trials."""
        if self._told:
            self._put_told()
        return self._study

    @without_collecting()
    def _put_told(self) -> None:
        """Put the trials of the log into the study in their order, as what they have become.

        To begin each and tell its end would take five times as long.
        """
        told, self._told = self._told, {}
        number = len(self._study.get_trials(deepcopy=False))
        for suggestion, fate in told.values():
            over = [logged_trial(drawn, _over_limits(drawn["excess"])) for drawn in suggestion.rejected]
            kept = logged_trial({"params": suggestion.params, "distributions": suggestion.distributions}, fate)
            self._study.add_trials([*over, kept])
            self._optunas[suggestion.trial_id] = number + len(over)
            number += len(over) + 1

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial: one that is to be tried again, or a new one.

        Args:
            trial_id: Tune's own name, which is another for each attempt; ours is part of what is returned.

        Returns:
            A `Suggestion` as a configuration; Ray's FINISHED once `num_trials` have ended, or the search is over; None while none is to be
            started, but one that runs may have to be tried again.
        """
        if self._waiting:
            return self._waiting.popleft().as_config()
        if len(self._taken) < self.num_trials and not self._is_over():
            return self._suggest_new(
                next(number for number in itertools.count() if number not in self._taken)
            ).as_config()
        return None if self._open else str(Searcher.FINISHED)

    def _suggest_new(self, number: int) -> Suggestion:
        rejected: list[Mapping[str, Any]] = []
        while True:
            trial, choice = self._ask(number, attempt=len(rejected))
            excess = self._excess(choice)
            if max(excess.values(), default=0.0) <= 0:
                break
            rejected.append({"params": trial.params, "distributions": _as_json(trial), "excess": dict(excess)})
            self._reject(trial, excess)
            _expect_within(rejected)
        suggestion = Suggestion(
            trial_id=trial_id_of(self._plan.seed, number),
            number=number,
            choice=choice,
            params=trial.params,
            distributions=_as_json(trial),
            rejected=rejected,
        )
        trial.set_user_attr("trial_id", suggestion.trial_id)
        self._take(suggestion, trial.number)
        return suggestion

    def _take(self, suggestion: Suggestion, optunas: int) -> None:
        self._open[suggestion.trial_id] = suggestion
        self._taken.add(suggestion.number)
        self._optunas[suggestion.trial_id] = optunas
        self._history.on_start(suggestion)

    def _choice(self, strategy: str, values: Values) -> Mapping[str, Any]:
        """What the space makes of a strategy with its parameters; candidates, and what was tried, are asked for several times."""
        key = (strategy, *values.items())
        if key not in self._choices:
            if len(self._choices) == MOST_CHOICES:
                self._choices.clear()
            self._choices[key] = self._space(FixedTrial({STRATEGY: strategy, **values}))
        return self._choices[key]

    def _known_costs(self, strategy: str, values: Mapping[str, Any]) -> dict[str, float]:
        costs = self._known(self._choice(strategy, values))
        return {
            objective.name: math.log10(costs[objective.name])
            for objective in self.objectives
            if costs.get(objective.name, 0.0) > 0
        }

    def _ask(self, number: int, attempt: int) -> tuple[Trial, dict[str, Any]]:
        """A configuration for the trial of that number; attempts after the first follow rejected ones."""
        if given := self._given(number, attempt):
            self.study.enqueue_trial(dict(given))
        self.study.sampler = self._sampler(self._plan.at(number, attempt, tuple(self._history)))
        trial = self.study.ask()
        return trial, self._space(trial)

    def _given(self, number: int, attempt: int) -> Values:
        """What a trial is to have that no sampler chooses: first each strategy once, then what earlier sweeps propose."""
        if number < len(self.strategies):
            first = self.strategies[number]
            return {STRATEGY: first, **(published(self._suggested_by, first) if not attempt else {})}
        proposed = proposals(self._earlier, self._plan.spaces)[number - len(self.strategies) :]
        return proposed[0] if proposed and not attempt else {}

    def _reject(self, trial: Trial, excess: Mapping[str, float]) -> None:
        """Tell Optuna that a configuration is over a limit, so that it looks elsewhere."""
        self._tell(trial, _over_limits(excess))

    def _tell(self, trial: Trial, fate: Mapping[str, Any]) -> None:
        for name, value in fate["user_attrs"].items():
            trial.set_user_attr(name, value)
        for name, value in fate["constraints"].items():
            trial.set_constraint(name, value)
        self.study.tell(trial, state=fate["state"])

    def on_earlier(self, sweep: EarlierSweep) -> None:
        """Learn from an earlier sweep: its results are observations if it is comparable, else its front is proposed."""
        self._earlier.append(sweep)
        observed = observations(sweep, self.objectives, spaces=self._plan.spaces, choice=self._space)
        for trial, metrics in observed:
            self._study.add_trial(trial)
            params = {name: value for name, value in trial.params.items() if name != STRATEGY}
            self._history.add_earlier(trial.params[STRATEGY], params, metrics)

    def on_start(self, suggestion: Suggestion) -> None:
        """Take over a trial of the log that this searcher has not suggested itself."""
        if suggestion.number not in self._taken:
            self._history.on_start(suggestion)
            self._open[suggestion.trial_id] = suggestion
            self._taken.add(suggestion.number)
            self._told[suggestion.trial_id] = suggestion, _fate(TrialState.RUNNING, {"trial_id": suggestion.trial_id})

    def on_retry(self, trial_id: str, reason: str) -> None:
        """Suggest a trial once more whose process or machine was lost; one that has ended is not tried again."""
        if trial_id in self._open:
            self._waiting.append(self._open[trial_id])

    def resume(self) -> None:
        """Suggest the trials first that the log's events leave open, as if nobody worked on them."""
        self._waiting = deque(self._open.values())

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tune's word does not say how a trial ended; `on_end` does."""

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Keep a trial's last report, and what it says of a rung."""
        self._reports[trial_id] = metrics
        self._history.on_report(trial_id, metrics)

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Tell Optuna how a trial ended; a trial that has ended already keeps its end."""
        suggestion, report = self._open.pop(trial_id, None), self._reports.pop(trial_id, {})
        if suggestion is None:
            return
        fate = self._ended(trial_id, end, report)
        self._history.on_end(trial_id, end)
        if trial_id in self._told:
            self._told[trial_id] = suggestion, fate
        elif end.kind == COMPLETED:  # a `Trial` would ask the sampler
            self.study.tell(self._optunas[trial_id], fate["values"])
        else:
            self._tell(Trial(self.study, self.record(trial_id)._trial_id), fate)

    def _ended(self, trial_id: str, end: TrialEnd, report: Mapping[str, Any]) -> Mapping[str, Any]:
        if end.kind == COMPLETED:
            values = [float(report[objective.name]) for objective in self.objectives]
            return _fate(TrialState.COMPLETE, {"trial_id": trial_id}, values=values)
        return _fate(
            TrialState.FAIL if end.lost else STATES[end.kind],
            {"trial_id": trial_id, REASON: end.reason, RUNG: end.rung},
            constraints={WORKS: BROKEN} if end.kind == FAILED and not end.lost else {},
        )

    def record(self, trial_id: str) -> FrozenTrial:
        """Optuna's record of a trial: number, parameters by name ("lora/rank"), state, values, reason of an early end.

        Raises:
            KeyError: no trial of that id was suggested.
        """
        return self.study.get_trials(deepcopy=False)[self._optunas[trial_id]]

    def plan_with(self, trial_id: str, metrics: Mapping[str, Any]) -> SearchPlan:
        """The search's plan with all that was tried, as it were if a trial had made this report already.

        Once the search is over, no more configurations will be asked for than were.
        """
        plan = self._plan.at(len(self._taken), history=self._history.with_report(trial_id, metrics))
        return replace(plan, num_trials=plan.number) if self._is_over() else plan

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the event log is the sweep's memory, not Tune's snapshots."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def _as_json(trial: Trial) -> dict[str, str]:
    """What a trial's values were drawn from."""
    return {name: distribution_to_json(distribution) for name, distribution in trial.distributions.items()}


def _fate(
    state: TrialState,
    attributes: Mapping[str, Any],
    *,
    values: list[float] | None = None,
    constraints: Mapping[str, float] | None = None,
) -> Mapping[str, Any]:
    """What has become of an Optuna trial, by the names that Optuna's `create_trial` has for it; attributes of None are none."""
    user_attrs = {name: value for name, value in attributes.items() if value is not None}
    return {"state": state, "values": values, "constraints": dict(constraints or {}), "user_attrs": user_attrs}


def _over_limits(excess: Mapping[str, float]) -> Mapping[str, Any]:
    return _fate(TrialState.PRUNED, {REASON: "over a limit: not tried"}, constraints=excess)


def _expect_within(rejected: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to go on drawing where next to nothing is within the limits."""
    if len(rejected) < MOST_REJECTED:
        return
    least = min((drawn["excess"] for drawn in rejected), key=lambda excess: max(excess.values()))
    name = max(least, key=lambda key: least[key])
    raise ValueError(
        f"`search.limits` must leave configurations to be tried, but got {len(rejected)} in a row that are over, the closest "
        f"by {least[name]:.0%} of {name}. Raise the limit, or fix smaller values with "
        "--set search.hyperparameters.STRATEGY.rank=2."
    )


def trial_id_of(seed: int, number: int) -> str:
    """Eight hexadecimal digits that name a trial of a sweep: the same in each sweep of that seed, another for each number."""
    first = int(hashlib.sha256(str(seed).encode()).hexdigest()[:8], 16)
    return f"{(first + number * ODD_STEP) % 2**32:08x}"


def _create_study(objectives: Sequence[Objective]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=[DIRECTIONS[objective.direction] for objective in objectives])
