"""What a search sampler may know of the search: each strategy's own space, how many trials there are, which one is next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from search_spaces import SearchSpace

STRATEGY: Final = "strategy"
"""The parameter on which it depends which others there are."""
Distributions = Mapping[str, BaseDistribution]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """A search and the trial of it that is to be suggested.

    Attributes:
        spaces: by strategy, what its parameters are drawn from; they do not depend on each other. The first trials try
            each strategy once, in this order.
        num_trials: how many configurations will be asked for.
        seed: of the search.
        number: 0-based, of the trial.
    """

    spaces: Mapping[str, Distributions]
    num_trials: int
    seed: int
    number: int = 0

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        strategies: Sequence[str],
        hyperparameters: Mapping[str, Mapping[str, Any]],
        *,
        num_trials: int,
        seed: int,
    ) -> Self:
        """The plan of a search before its first trial.

        Args:
            space: suggests configurations.
            strategies: to choose from.
            hyperparameters: by strategy, values that are not suggested.
            num_trials: in all.
            seed: of the search.
        """
        suggest = partial(space, **({"fixed": hyperparameters} if hyperparameters else {}))
        return cls(spaces={name: _own_space(suggest, name) for name in strategies}, num_trials=num_trials, seed=seed)

    def at(self, number: int) -> Self:
        """The same for another trial."""
        return replace(self, number=number)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies to choose from."""
        return tuple(self.spaces)

    @property
    def trial_seed(self) -> int:
        """Seed of random numbers that are this trial's, whatever was drawn for others."""
        return int(np.random.SeedSequence((self.seed, self.number)).generate_state(1)[0])

    def strategy_rng(self, strategy: str) -> np.random.Generator:
        """Random numbers that are a strategy's, the same for each trial."""
        return np.random.default_rng((self.seed, *strategy.encode()))


def _own_space(suggest: SearchSpace, strategy: str) -> Distributions:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    suggest(trial, strategies=(strategy,))
    return {name: own for name, own in trial.distributions.items() if name != STRATEGY}
