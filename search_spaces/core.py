"""The core space: every strategy with its own hyperparameters, at Stable Diffusion 1.5's learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from optuna import Trial

STRATEGIES: Final = (
    "unet", "lora", "dora", "bitfit", "norm", "attention", "difffit", "text_encoder", "unet+text_encoder",
)  # fmt: skip
RANKS: Final = (2, 4, 8, 16, 32)
ALPHA_RATIOS: Final = (1.0, 2.0, 4.0)
TEXT_ENCODER_LR_RATIOS: Final = (0.03, 0.1, 0.3, 1.0)
LEARNING_RATES: Final = {
    "unet": (2e-6, 1e-4),
    "lora": (2e-5, 2e-3),
    "dora": (2e-5, 2e-3),
    "bitfit": (5e-5, 5e-3),
    "norm": (5e-5, 5e-3),
    "attention": (5e-6, 5e-4),
    "difffit": (1e-4, 1e-2),
    "text_encoder": (1e-6, 5e-5),
    "unet+text_encoder": (2e-6, 1e-4),
}
"""Log-uniform ranges about the published values: 1e-5 for the whole U-Net, alone or with the text encoder, 5e-6 for the
text encoder alone, 1e-4 for LoRA, DoRA and BitFit, 1e-3 for DiffFit. Norms are taken like biases, attention between."""
BATCH_SIZES: Final = (4, 8, 16)


def core(trial: Trial, strategies: Sequence[str] = STRATEGIES) -> dict[str, Any]:
    """Suggest a strategy with its hyperparameters, a learning rate and a batch size, for Stable Diffusion 1.5. See `suggest_choice`."""
    return suggest_choice(trial, strategies, learning_rates=LEARNING_RATES, batch_sizes=BATCH_SIZES)


def suggest_choice(
    trial: Trial,
    strategies: Sequence[str],
    *,
    learning_rates: Mapping[str, tuple[float, float]],
    batch_sizes: Sequence[int],
) -> dict[str, Any]:
    """Suggest a strategy, its own hyperparameters, its learning rate and a batch size.

    Args:
        trial: Optuna's record of the trial.
        strategies: Names to choose from.
        learning_rates: Lowest and highest learning rate of each strategy.
        batch_sizes: Images of one optimiser step over all workers, to choose from.

    Returns:
        `{"strategy": {"name": ..., <its fields>}, "lr": ..., "batch_size": ...}`.
    """
    name = trial.suggest_categorical("strategy", tuple(strategies))
    own = OWN[name](trial, name) if name in OWN else {}
    low, high = learning_rates[name]
    return {
        "strategy": {"name": name, **own},
        "lr": trial.suggest_float(f"{name}/lr", low, high, log=True),
        "batch_size": trial.suggest_categorical("batch_size", tuple(batch_sizes)),
    }


def _suggest_low_rank(trial: Trial, name: str) -> dict[str, Any]:
    # Alpha as a multiple of the rank: what acts on the weights is the scale alpha / rank.
    rank = trial.suggest_categorical(f"{name}/rank", RANKS)
    ratio = trial.suggest_categorical(f"{name}/alpha_ratio", ALPHA_RATIOS)
    return {"rank": rank, "alpha": round(rank * ratio)}


def _suggest_layers(trial: Trial, name: str) -> dict[str, Any]:
    return {"layers": trial.suggest_categorical(f"{name}/layers", ("cross", "all"))}


def _suggest_gammas(trial: Trial, name: str) -> dict[str, Any]:
    return {"attention_gammas": trial.suggest_categorical(f"{name}/attention_gammas", (True, False))}


def _suggest_lr_ratio(trial: Trial, name: str) -> dict[str, Any]:
    ratio = trial.suggest_categorical(f"{name}/text_encoder_lr_ratio", TEXT_ENCODER_LR_RATIOS)
    return {"text_encoder_lr_ratio": ratio}


OWN: Final[dict[str, Callable[[Trial, str], dict[str, Any]]]] = {
    "lora": _suggest_low_rank,
    "dora": _suggest_low_rank,
    "attention": _suggest_layers,
    "difffit": _suggest_gammas,
    "unet+text_encoder": _suggest_lr_ratio,
}
"""What strategies have besides a learning rate."""
