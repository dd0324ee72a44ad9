"""LoRA: a trained low-rank update beside each targeted layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.low_rank import LowRankStrategy, expect_positive


@dataclass(frozen=True, kw_only=True)
class LoRA(LowRankStrategy):
    """Low-rank updates of the targeted layers.

    Attributes:
        rank: rank of the update, at least 1.
        alpha: the update is scaled by alpha / rank.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.
        rslora: scale by alpha / sqrt(rank) instead, under which updates do not shrink as the rank grows.
        lora_plus_ratio: learning rate of B over that of A; LoRA+ proposes 16, 1 is plain LoRA.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Kalajdzievski 2023, "A Rank
    Stabilization Scaling Factor for Fine-Tuning with LoRA"; Hayou et al. 2024, "LoRA+".
    """

    name = "lora"

    rslora: bool = False
    lora_plus_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(isinstance(self.rslora, bool), "`rslora` must be true or false", repr(self.rslora), "Try true.")
        expect_positive(self.lora_plus_ratio, "lora_plus_ratio", "Try 16, or 1 for plain LoRA.")

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """All A at `lr`, all B at `lr` times LoRA+'s ratio."""
        layers = self.layers(models).values()
        return [
            {"params": [layer.lora_A for layer in layers], "lr": lr},
            {"params": [layer.lora_B for layer in layers], "lr": lr * self.lora_plus_ratio},
        ]
