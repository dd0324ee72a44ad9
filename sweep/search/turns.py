"""Samplers in which the strategies take turns, and each has a model, a population or a sequence of its own.

Optuna's samplers of that kind choose only what every trial has, which in a conditional space is strategy and batch size.
Here each is given the trials of one strategy as a study of its own, in which every trial has every parameter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats.qmc import Sobol

from sweep.search.plan import OF_EARLIER, STRATEGY, Distributions, SearchPlan, Values

Choose = Callable[[str, optuna.Study], Values]
"""Chooses the parameters of a strategy, given the whole search's study."""
ChooseBoth = Callable[[str | None, optuna.Study], tuple[str, Values]]
"""Chooses a strategy, unless it is given, and its parameters."""
LEVELS: Final = 3
"""Places of a continuous parameter on a grid, in the middles of as many equal parts of its range."""


class Turns(BaseSampler):
    """Gives one trial of a search the strategy whose turn it is, and what is chosen for it."""

    def __init__(self, choose: ChooseBoth) -> None:
        """Choose once by `choose`, which is given the strategy where it is enqueued."""
        self._choose = choose
        self._chosen: tuple[str, Values] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameters: each is asked for when the space suggests it."""
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Suggest none here either."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a parameter."""
        if self._chosen is None:
            self._chosen = self._choose(trial.params.get(STRATEGY), study)
        strategy, values = self._chosen
        return strategy if param_name == STRATEGY else values[param_name]


def in_turns(plan: SearchPlan, choose: Choose) -> Turns:
    """Strategy after strategy, in the plan's order."""

    def chosen(enqueued: str | None, study: optuna.Study) -> tuple[str, Values]:
        strategy = enqueued or plan.strategies[plan.number % len(plan.strategies)]
        return strategy, choose(strategy, study)

    return Turns(chosen)


def sobol_point(plan: SearchPlan, strategy: str) -> Values:
    """The strategy's next point of a scrambled Sobol sequence, a coordinate to each parameter that has a choice.

    A power of two of points is balanced: of eight trials, one has its learning rate in each eighth of the range. Points after
    those of all trials are for further attempts.

    Source:
        Sobol 1967; Owen 1998 (scrambling).
    """
    space = plan.spaces[strategy]
    sequence = Sobol(max(1, len(space)), scramble=True, rng=plan.strategy_rng(strategy))
    turns = -(-plan.num_trials // len(plan.strategies))
    # An odd stride: points that lie an even number of steps apart are in the same half, quarter, ... of each range.
    stride = turns | 1
    place = plan.number // len(plan.strategies) + plan.attempt * stride
    shares = sequence.random_base2(place.bit_length())[place]
    return {name: value_at(float(share), space[name]) for name, share in zip(space, shares, strict=False)}


def value_at(share: float, distribution: BaseDistribution) -> CategoricalChoiceType:
    """What lies at a share, in [0, 1), of a distribution.

    Raises:
        ValueError: it is of a kind that no search space here has.
    """
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[int(share * len(distribution.choices))]
        case IntDistribution(log=False, step=1):
            return distribution.low + int(share * (distribution.high - distribution.low + 1))
        case FloatDistribution(log=True):
            return float(distribution.low * (distribution.high / distribution.low) ** share)
        case FloatDistribution(step=None):
            return distribution.low + share * (distribution.high - distribution.low)
    raise ValueError(
        f"`distribution` must be categorical, uniform or log-uniform, but got {distribution}. Extend it here."
    )


def share_at(value: Any, distribution: BaseDistribution) -> float:
    """The share, in [0, 1), of a distribution at which a value lies: the inverse of `value_at`.

    Raises:
        ValueError: it is of a kind that no search space here has.
    """
    match distribution:
        case CategoricalDistribution():
            return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
        case IntDistribution(log=False, step=1):
            return (float(value) - distribution.low + 0.5) / (distribution.high - distribution.low + 1)
        case FloatDistribution(log=True):
            return math.log(float(value) / distribution.low) / math.log(distribution.high / distribution.low)
        case FloatDistribution(step=None):
            return (float(value) - distribution.low) / (distribution.high - distribution.low)
    raise ValueError(
        f"`distribution` must be categorical, uniform or log-uniform, but got {distribution}. Extend it here."
    )


def has_order(distribution: BaseDistribution) -> bool:
    """Whether neighbours are alike: numbers have an order, names and switches none."""
    if not isinstance(distribution, CategoricalDistribution):
        return True
    return set(map(type, distribution.choices)) <= {int, float}


def by_own_study(plan: SearchPlan, strategy: str, study: optuna.Study, sampler: BaseSampler) -> Values:
    """What a sampler of Optuna's suggests that knows the trials of one strategy, as if there were no others.

    Args:
        plan: the search's, of the trial that is asked for.
        strategy: whose turn it is.
        study: all trials.
        sampler: Optuna's, which is asked.
    """
    space = plan.spaces[strategy]
    own_study = optuna.create_study(directions=study.directions, sampler=sampler)
    for trial in study.get_trials(deepcopy=False):
        if trial.params.get(STRATEGY) == strategy and trial.params.keys() - {STRATEGY} == space.keys():
            _take_over(own_study, trial, space)
    return own_study.ask(dict(space)).params


def _take_over(own_study: optuna.Study, trial: FrozenTrial, space: Distributions) -> None:
    """Add a trial to the study of its strategy; one that gave no values as one that still runs."""
    params = {name: trial.params[name] for name in space}
    own_study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=dict(space)))
    added = own_study.get_trials(deepcopy=False)[-1]
    if trial.state == TrialState.COMPLETE:
        if isinstance(own_study.sampler, optuna.samplers.BaseGASampler):
            # Asking for the generation of a trial counts it to the one that was being filled.
            own_study.sampler.get_trial_generation(own_study, added)
        own_study.tell(added.number, trial.values)
    elif trial.state != TrialState.RUNNING:
        own_study.tell(added.number, state=trial.state)


def grid_points(plan: SearchPlan) -> list[tuple[str, Values]]:
    """All points of all strategies: one of each strategy first, the others after them in an order drawn by the seed."""
    drawn: list[list[tuple[str, Values]]] = []
    for strategy, space in plan.spaces.items():
        points = [dict(zip(space, values, strict=True)) for values in itertools.product(*map(_levels, space.values()))]
        order = plan.strategy_rng(strategy).permutation(len(points))
        drawn.append([(strategy, points[place]) for place in order])
    rest = [point for of_strategy in drawn for point in of_strategy[1:]]
    order = plan.strategy_rng("").permutation(len(rest))
    return [*(of_strategy[0] for of_strategy in drawn), *(rest[place] for place in order)]


def untried_point(
    points: Sequence[tuple[str, Values]], strategy: str | None, study: optuna.Study
) -> tuple[str, Values]:
    """The first point, of a strategy where one is given, that no trial of a study has, nor one that was over a limit.

    Args:
        points: strategies with their values, in the order in which they are tried.
        strategy: to choose among its points; None: among all.
        study: what has been tried.

    Raises:
        ValueError: all have been tried, or were over a limit.
    """
    trials = (trial for trial in study.get_trials(deepcopy=False) if OF_EARLIER not in trial.user_attrs)
    tried = {frozenset(trial.params.items()) for trial in trials}
    for name, values in points:
        if strategy in (None, name) and frozenset({STRATEGY: name, **values}.items()) not in tried:
            return name, values
    whose = f" of {strategy}" if strategy else ""
    raise ValueError(
        f"`search.num_trials` must be at most the points of the grid that are within search.limits, but got no further "
        f"point{whose} among {len(points)}. Lower it, raise a limit, or choose another search.sampler."
    )


def _levels(distribution: BaseDistribution) -> Sequence[Any]:
    """Every choice; of a continuous parameter the middles of equal parts of its range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    return [value_at((level + 0.5) / LEVELS, distribution) for level in range(LEVELS)]
