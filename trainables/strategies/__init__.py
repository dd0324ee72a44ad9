"""Fine-tuning strategies: one file each, one line in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trainables.strategies.attention import Attention
from trainables.strategies.base import Strategy
from trainables.strategies.bitfit import BitFit
from trainables.strategies.difffit import DiffFit
from trainables.strategies.dora import DoRA
from trainables.strategies.full import FullTextEncoder, FullUNet, FullUNetAndTextEncoder
from trainables.strategies.lora import LoRA
from trainables.strategies.naming import unknown_name
from trainables.strategies.norm import Norm

STRATEGIES: dict[str, type[Strategy]] = {
    "unet": FullUNet,
    "text_encoder": FullTextEncoder,
    "unet+text_encoder": FullUNetAndTextEncoder,
    "lora": LoRA,
    "dora": DoRA,
    "bitfit": BitFit,
    "norm": Norm,
    "attention": Attention,
    "difffit": DiffFit,
}

__all__ = ["STRATEGIES", "Strategy", "make_strategy"]


def make_strategy(name: str, hyperparameters: Mapping[str, Any]) -> Strategy:
    """The strategy of that name with these hyperparameters; those left out have their defaults.

    Raises:
        ValueError: the strategy or a hyperparameter is unknown, or a value breaks its rule.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    strategy = STRATEGIES[name]
    valid = {field.name for field in fields(strategy)}
    for key in hyperparameters:
        if key not in valid:
            raise unknown_name(f"hyperparameter of {name}", key, valid)
    return strategy(**hyperparameters)
