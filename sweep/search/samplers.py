"""The search samplers: how Optuna chooses the next configuration. One object each, one line in the table.

All of them are given the same space, whose hyperparameters depend on the strategy, and several objectives. Optuna's
NSGA, quasi-Monte-Carlo and Gaussian-process samplers are not among them: as they are, they choose only what every trial
has, which here is strategy and batch size, and draw learning rate and ranks at random.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """What a search sampler may know of the search before it starts.

    Attributes:
        num_strategies: how many strategies there are to choose from; the first trials try each of them once.
        num_trials: how many configurations will be asked for.
        seed: of the sampler's own random numbers.
    """

    num_strategies: int
    num_trials: int
    seed: int


SearchSampler = Callable[[SearchPlan], BaseSampler]
"""Makes a sampler for a search; the same plan and the same results in the same order give the same configurations."""


def tpe(plan: SearchPlan) -> BaseSampler:
    """Tree-structured Parzen estimators of the good and of the other trials, one for each strategy (`group`).

    Trials that still run count as bad ones (`constant_liar`), so that those beside them are tried elsewhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=min(10, max(plan.num_strategies, plan.num_trials // 3)),
            seed=plan.seed,
        )


def random(plan: SearchPlan) -> BaseSampler:
    """Every configuration drawn on its own; what the others are compared with."""
    return RandomSampler(seed=plan.seed)


SEARCH_SAMPLERS: Final[Mapping[str, SearchSampler]] = {"tpe": tpe, "random": random}
