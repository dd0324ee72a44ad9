"""Attention tuning: only the weights of the attention layers train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect_known
from trainables.strategies.base import Sizes, Strategy

LAYERS = {"cross": ("attn2",), "all": ("attn1", "attn2")}
"""In diffusers' transformer blocks attn1 is self-attention, attn2 attends to the prompt."""


@dataclass(frozen=True, kw_only=True)
class Attention(Strategy):
    """Query, key, value and output projections of the U-Net's attention layers, in full; nothing is added.

    Attributes:
        layers: `cross`, where image meets prompt, or `all`, self-attention besides.

    Source: Kumari et al. 2023, "Multi-Concept Customization of Text-to-Image Diffusion" (keys and values of
    cross-attention); Touvron et al. 2022, "Three Things Everyone Should Know about Vision Transformers" (attention only).
    """

    name = "attention"
    sized: ClassVar[Sizes] = {"layers": tuple(LAYERS)}

    layers: str = "cross"

    def __post_init__(self) -> None:
        expect_known("layers", self.layers, LAYERS)

    def inject(self, models: DiffusionModels) -> None:
        """Let the chosen layers' projections train."""
        for path, module in models.unet.named_modules():
            if path.rpartition(".")[2] in LAYERS[self.layers]:
                module.requires_grad_(True)
