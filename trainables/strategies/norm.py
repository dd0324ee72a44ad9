"""Norm tuning: only the scales and shifts of the normalisation layers train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy

NORM_LAYERS = (nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class Norm(Strategy):
    """Scale and shift of every normalisation layer of the U-Net; nothing is added.

    The scales are not decayed: weight decay would pull them, and with them what their layers give, towards zero.

    Source: Frankle et al. 2021, "Training BatchNorm and Only BatchNorm"; Basu et al. 2024, "Strong Baselines for
    Parameter Efficient Few-Shot Fine-tuning" (LayerNorm).
    """

    name = "norm"

    def inject(self, models: DiffusionModels) -> None:
        """Let the norms' parameters train."""
        for module in models.unet.modules():
            if isinstance(module, NORM_LAYERS):
                module.requires_grad_(True)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """Shifts in one group, scales in another that is not decayed."""
        return self.groups_by_decay(models, lr, lambda name: name == "weight")
