"""Search samplers: which configuration Optuna suggests next, by name; one function and one line in the table each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Final

import optuna

SearchSampler = Callable[[int, int, int], optuna.samplers.BaseSampler]
"""Called with the number of strategies, the number of trials and a seed."""


def tpe(num_strategies: int, num_trials: int, seed: int) -> optuna.samplers.BaseSampler:
    """Multi-objective TPE that starts after each strategy was tried, and a third of the trials at most ten."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=min(10, max(num_strategies, num_trials // 3)),
            seed=seed,
        )


SEARCH_SAMPLERS: Final[dict[str, SearchSampler]] = {"tpe": tpe}
