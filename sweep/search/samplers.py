"""The search samplers: how the next configuration is chosen. One object each, one line in the table.

All of them are given the same space, whose hyperparameters depend on the strategy, and several objectives. `front`,
`tpe` and `random` choose the strategy too, and `grid` has all in one order; in the others the strategies take turns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Final

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

from sweep.search.expected_gain import most_gainful
from sweep.search.plan import SearchPlan
from sweep.search.turns import Turns, by_own_study, grid_points, in_turns, sobol_point, untried_point

SearchSampler = Callable[[SearchPlan], BaseSampler]
"""Makes the sampler of one trial; the same plan and the same results in the same order give the same configuration.

It raises ValueError where it cannot suggest so many trials."""
LEAST_POPULATION: Final = 4
LEAST_OBSERVATIONS: Final = 4
"""Completed trials of a strategy from which a model of it is made; before, its configurations are random."""


def tpe(plan: SearchPlan) -> BaseSampler:
    """Tree-structured Parzen estimators of the good and of the other trials, one for each strategy (`group`).

    Trials that still run count as bad ones (`constant_liar`), so that those beside them are tried elsewhere, and so do
    those that were stopped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=min(10, max(len(plan.strategies), plan.num_trials // 3)),
            seed=plan.trial_seed,
        )


def front(plan: SearchPlan) -> BaseSampler:
    """What is expected to add most to the front's hypervolume for its cost, by a Gaussian process over all strategies.

    Source:
        Noisy expected improvement of the hypervolume: Daulton et al. 2021.
    """
    return Turns(lambda enqueued, study: most_gainful(plan, enqueued))


def random(plan: SearchPlan) -> BaseSampler:
    """Every configuration drawn on its own; what the others are compared with."""
    return RandomSampler(seed=plan.trial_seed)


def qmc(plan: SearchPlan) -> BaseSampler:
    """The points of a Sobol sequence for each strategy: spread more evenly than random ones, whatever the results."""
    return in_turns(plan, lambda strategy, _: sobol_point(plan, strategy))


def gp(plan: SearchPlan) -> BaseSampler:
    """Gaussian processes for each strategy, by expected improvement of the hypervolume."""
    sampler = GPSampler(seed=plan.trial_seed, n_startup_trials=LEAST_OBSERVATIONS)
    return in_turns(plan, lambda strategy, study: by_own_study(plan, strategy, study, sampler))


def nsga2(plan: SearchPlan) -> BaseSampler:
    """A population for each strategy; parents by rank and crowding (Deb et al. 2002)."""
    sampler = NSGAIISampler(seed=plan.trial_seed, population_size=_population(plan))
    return in_turns(plan, lambda strategy, study: by_own_study(plan, strategy, study, sampler))


def nsga3(plan: SearchPlan) -> BaseSampler:
    """A population for each strategy; parents by rank and nearness to reference directions (Deb and Jain 2014)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = NSGAIIISampler(seed=plan.trial_seed, population_size=_population(plan))
    return in_turns(plan, lambda strategy, study: by_own_study(plan, strategy, study, sampler))


def _population(plan: SearchPlan) -> int:
    """A quarter of a strategy's trials, so that there are about four generations."""
    return max(LEAST_POPULATION, plan.num_trials // (4 * len(plan.strategies)))


def grid(plan: SearchPlan) -> BaseSampler:
    """Every choice with every other and three learning rates, in an order drawn by the seed, and none twice.

    Raises:
        ValueError: there are fewer points than trials.
    """
    points = grid_points(plan)
    if plan.num_trials > len(points):
        sizes = {name: sum(point_strategy == name for point_strategy, _ in points) for name in plan.strategies}
        raise ValueError(
            f"`search.num_trials` must be at most {len(points)} with the sampler 'grid', the points of the grid "
            f"({', '.join(f'{name} {size}' for name, size in sizes.items())}), but got {plan.num_trials}. Lower it, or "
            "choose another search.sampler."
        )
    return Turns(lambda strategy, study: untried_point(points, strategy, study))


SEARCH_SAMPLERS: Final[Mapping[str, SearchSampler]] = {
    "front": front,
    "tpe": tpe,
    "nsga2": nsga2,
    "nsga3": nsga3,
    "gp": gp,
    "qmc": qmc,
    "random": random,
    "grid": grid,
}
UNLED: Final = (random, qmc, grid)
"""Those that results do not lead to what is promising."""
