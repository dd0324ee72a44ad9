"""The mini space: the core space's strategies at the learning rates and batches of the bundled mini base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna import Trial

from search_spaces.suggest import NOTHING, Fixed, suggest_choice


def mini(trial: Trial, strategies: Sequence[str] | None = None, fixed: Fixed = NOTHING) -> dict[str, Any]:
    """Suggest a strategy with its hyperparameters, a learning rate and a batch size. See `suggest_choice`.

    Args:
        trial: Optuna's, which is asked for values.
        strategies: those to choose from; None: all that the space has.
        fixed: by strategy, values that are not asked for.
    """
    return suggest_choice(trial, strategies, fixed, space="mini", batch_sizes=(16, 32))
