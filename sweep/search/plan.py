"""What a search sampler may know of the search: each strategy's own space, how many trials there are, which one is next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from analysis.front.pareto import Objective
from search_spaces import SearchSpace
from sweep.search.history import Tried

STRATEGY: Final = "strategy"
"""Name of the parameter that decides which other parameters there are."""
OF_EARLIER: Final = "earlier"
"""Attribute of an Optuna trial that an earlier sweep has made: its run directory."""
Distributions = Mapping[str, BaseDistribution]
Values = Mapping[str, Any]
"""A strategy's parameters by Optuna's names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """A search and the trial of it that is to be suggested.

    Attributes:
        spaces: by strategy, what its parameters are drawn from; they do not depend on each other. The first trials try
            each strategy once, in this order.
        num_trials: how many configurations will be asked for.
        seed: the seed of the whole search.
        number: 0-based number of the trial.
        attempt: 0-based: how many configurations for this trial were over a limit and are not tried.
        objectives: what the search optimises, each in its direction.
        history: the trials so far, in the order of their numbers.
        known: by objective, what is known of a strategy with its parameters before it is tried, as decimal logarithms.
        is_within: whether a strategy with its parameters is within all limits.
        is_led: whether results lead the search sampler to what is promising; otherwise its trials are as good as random.
    """

    spaces: Mapping[str, Distributions]
    num_trials: int
    seed: int
    number: int = 0
    attempt: int = 0
    objectives: tuple[Objective, ...] = ()
    history: Sequence[Tried] = ()
    known: Callable[[str, Values], Mapping[str, float]] = lambda strategy, values: {}
    is_within: Callable[[str, Values], bool] = lambda strategy, values: True
    is_led: bool = True

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

    def at(self, number: int, attempt: int = 0, history: Sequence[Tried] = ()) -> Self:
        """The same for another trial, or for another attempt at it, with what was tried before.

        Args:
            number: 0-based, of the sweep's suggestions.
            attempt: how many configurations were drawn for it before, and were over a limit.
            history: what was tried before.
        """
        return replace(self, number=number, attempt=attempt, history=history)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies to choose from."""
        return tuple(self.spaces)

    @property
    def trial_seed(self) -> int:
        """Seed of random numbers that are this trial's, whatever was drawn for others."""
        entropy = (self.seed, self.number, self.attempt) if self.attempt else (self.seed, self.number)
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def owed(self, without: int | None = None) -> list[str]:
        """Strategies of which no trial of this sweep has come to its end, be it by its own failure, and none may yet.

        Args:
            without: the number of a trial that is not counted.
        """
        counted = [tried for tried in self.history if tried.number >= 0 and tried.number != without]
        settled = {tried.strategy for tried in counted if tried.is_open or tried.is_whole}
        return [strategy for strategy in self.strategies if strategy not in settled]

    def strategy_rng(self, strategy: str) -> np.random.Generator:
        """Random numbers that are a strategy's, the same for each trial."""
        return np.random.default_rng((self.seed, *strategy.encode()))


def _own_space(suggest: SearchSpace, strategy: str) -> Distributions:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    suggest(trial, strategies=(strategy,))
    return {name: distribution for name, distribution in trial.distributions.items() if name != STRATEGY}
