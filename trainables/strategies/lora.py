"""LoRA: a trained low-rank update beside each targeted linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.strategies.low_rank import LowRankStrategy


@dataclass(frozen=True, kw_only=True)
class LoRA(LowRankStrategy):
    """Low-rank updates of the U-Net's linear layers.

    Args:
        rank: Rank of the update, at least 1.
        alpha: The update is scaled by alpha / rank.
        targets: `attention`, `attention+ff` or `all_linear`.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
    """

    name: ClassVar[str] = "lora"
