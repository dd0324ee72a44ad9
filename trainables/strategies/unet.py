"""Full fine-tuning of the U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy


@dataclass(frozen=True, kw_only=True)
class FullUNet(Strategy):
    """Every parameter of the U-Net; autoencoder and text encoder stay frozen."""

    name: ClassVar[str] = "unet"

    def inject(self, models: DiffusionModels) -> None:
        """Let the whole U-Net train."""
        models.unet.requires_grad_(True)
