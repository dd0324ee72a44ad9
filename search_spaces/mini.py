"""The mini space: the core space's choices at the learning rates and batches of the bundled mini base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from optuna import Trial

from search_spaces.core import NOTHING, STRATEGIES, Fixed, suggest_choice

LEARNING_RATES: Final = {
    "unet": (1e-4, 2e-3),
    "lora": (5e-4, 1e-2),
    "dora": (5e-4, 1e-2),
    "selora": (5e-4, 1e-2),
    "adalora": (1e-3, 2e-2),
    "dylora": (5e-4, 1e-2),
    "bitfit": (5e-4, 2e-2),
    "norm": (5e-4, 2e-2),
    "attention": (2e-4, 5e-3),
    "difffit": (5e-4, 2e-2),
    "delta_full": (1e-4, 2e-3),
    "text_encoder": (1e-4, 5e-3),
    "vae": (1e-5, 1e-3),
    "textual_inversion": (1e-3, 1e-1),
}
"""Log-uniform ranges. A model three hundred times smaller than Stable Diffusion's bears far larger steps."""
BATCH_SIZES: Final = (16, 32)


def mini(trial: Trial, strategies: Sequence[str] = STRATEGIES, fixed: Fixed = NOTHING) -> dict[str, Any]:
    """Suggest a strategy with its hyperparameters, a learning rate and a batch size, for the bundled mini base. See `suggest_choice`."""
    return suggest_choice(trial, strategies, fixed, learning_rates=LEARNING_RATES, batch_sizes=BATCH_SIZES)
