"""Fine-tuning strategies: one file each, one line in the table; combinations of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainables.base_models.models import DiffusionModels
from trainables.naming import unknown_name
from trainables.strategies.adalora import AdaLoRA
from trainables.strategies.attention import Attention
from trainables.strategies.base import Strategy
from trainables.strategies.bitfit import BitFit
from trainables.strategies.card import read_card
from trainables.strategies.composed import LR_RATIO, Composed, default_ratios, own_fields
from trainables.strategies.delta_full import DeltaFull
from trainables.strategies.difffit import DiffFit
from trainables.strategies.dora import DoRA
from trainables.strategies.dylora import DyLoRA
from trainables.strategies.full import FullAutoencoder, FullTextEncoder, FullUNet
from trainables.strategies.lora import LoRA
from trainables.strategies.nested_lora import NestedLoRA
from trainables.strategies.norm import Norm
from trainables.strategies.selora import SeLoRA
from trainables.strategies.text_encoder_swap import TextEncoderSwap
from trainables.strategies.textual_inversion import TextualInversion

STRATEGIES: dict[str, type[Strategy]] = {
    "unet": FullUNet,
    "text_encoder": FullTextEncoder,
    "vae": FullAutoencoder,
    "lora": LoRA,
    "dora": DoRA,
    "adalora": AdaLoRA,
    "dylora": DyLoRA,
    "nested_lora": NestedLoRA,
    "selora": SeLoRA,
    "bitfit": BitFit,
    "norm": Norm,
    "attention": Attention,
    "difffit": DiffFit,
    "delta_full": DeltaFull,
    "textual_inversion": TextualInversion,
    "text_encoder_swap": TextEncoderSwap,
}
COMBINATIONS: dict[str, tuple[str, ...]] = {
    "unet+text_encoder": ("unet", "text_encoder"),
    "unet+vae": ("unet", "vae"),
    "vae+text_encoder": ("vae", "text_encoder"),
    "all": ("unet", "vae", "text_encoder"),
    "lora+text_encoder": ("lora", "text_encoder"),
}
"""Combinations that the studies need. Any other is had by its name, strategies joined by a plus:
`dora+text_encoder`."""

__all__ = ["COMBINATIONS", "STRATEGIES", "Strategy", "hyperparameters_of", "load_adapter", "make_strategy"]


def make_strategy(name: str, hyperparameters: Mapping[str, Any]) -> Strategy:
    """The strategy or combination of that name with these hyperparameters; those left out have their defaults.

    Args:
        name: in the table, or several of its names joined by a plus.
        hyperparameters: by field; in a combination by `<strategy>.<field>` and `<strategy>.lr_ratio`.

    Raises:
        ValueError: the strategy or a hyperparameter is unknown, a value breaks its rule, or parts of a combination
            train the same component.
    """
    valid = hyperparameters_of(name)
    for key in hyperparameters:
        if key not in valid:
            raise unknown_name(f"hyperparameter of {name}", key, valid)
    parts = parts_of(name)
    if len(parts) == 1:
        return STRATEGIES[name](**hyperparameters)
    return Composed(
        label=name,
        parts=tuple(STRATEGIES[part](**dict(own_fields(part, hyperparameters))) for part in parts),
        lr_ratios=tuple(
            hyperparameters.get(f"{part}.{LR_RATIO}", ratio) for part, ratio in default_ratios(parts).items()
        ),
    )


def load_adapter(models: DiffusionModels, folder: Path) -> Strategy:
    """Attach an exported adapter to a fresh base, in place.

    Returns:
        The strategy that the adapter was trained by.

    Raises:
        FileNotFoundError: the folder has no adapter card.
        ValueError: the adapter belongs to another base, or its files are not what they should be.
    """
    card = read_card(folder)
    strategy = make_strategy(card["strategy"], card["hyperparameters"])
    strategy.restore(models, folder)
    return strategy


def parts_of(name: str) -> tuple[str, ...]:
    """The names in the table that make up a strategy or combination.

    Raises:
        ValueError: one of them is unknown.
    """
    parts = COMBINATIONS.get(name, tuple(name.split("+")))
    for part in parts:
        if part not in STRATEGIES:
            raise unknown_name("strategy", part, [*STRATEGIES, *COMBINATIONS] if len(parts) == 1 else STRATEGIES)
    return parts


def hyperparameters_of(name: str) -> tuple[str, ...]:
    """Names of the hyperparameters of a strategy or combination."""
    parts = parts_of(name)
    names = {part: tuple(field.name for field in fields(STRATEGIES[part])) for part in parts}
    if len(parts) == 1:
        return names[name]
    return tuple(f"{part}.{key}" for part in parts for key in (*names[part], LR_RATIO))
