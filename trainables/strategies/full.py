"""Full fine-tuning: every parameter of one or several parts of the base."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy, trained_parameters
from trainables.strategies.naming import expect


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Every parameter of the parts in `trains`; the others stay frozen."""

    def inject(self, models: DiffusionModels) -> None:
        """Let the whole of each part train."""
        for component in self.trains:
            models.component(component).requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class FullUNet(Full):
    """Every parameter of the U-Net; autoencoder and text encoder stay frozen."""

    name: ClassVar[str] = "unet"


@dataclass(frozen=True, kw_only=True)
class FullTextEncoder(Full):
    """Every parameter of the text encoder; U-Net and autoencoder stay frozen."""

    name: ClassVar[str] = "text_encoder"
    trains: ClassVar[tuple[str, ...]] = ("text_encoder",)


@dataclass(frozen=True, kw_only=True)
class FullUNetAndTextEncoder(Full):
    """Every parameter of the U-Net and the text encoder, each at its own learning rate.

    Args:
        text_encoder_lr_ratio: The text encoder's learning rate over the U-Net's.

    Source: "RoentGen" (training both); "Pixels under Pressure" (the text encoder at a tenth of the U-Net's rate).
    """

    name: ClassVar[str] = "unet+text_encoder"
    trains: ClassVar[tuple[str, ...]] = ("unet", "text_encoder")

    text_encoder_lr_ratio: float = 0.1

    def __post_init__(self) -> None:
        ratio = self.text_encoder_lr_ratio
        is_ratio = isinstance(ratio, int | float) and math.isfinite(ratio) and ratio > 0
        remedy = "Try 0.1; to train the U-Net alone, choose the strategy unet."
        expect(is_ratio, "`text_encoder_lr_ratio` must be a positive number", repr(ratio), remedy)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """The U-Net at `lr`, the text encoder at its share of it."""
        rates = {"unet": lr, "text_encoder": lr * self.text_encoder_lr_ratio}
        trained = list(trained_parameters(models))
        return [
            {"params": [parameter for path, parameter in trained if path.startswith(f"{component}.")], "lr": rate}
            for component, rate in rates.items()
        ]
