"""BitFit: only the biases train."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy


@dataclass(frozen=True, kw_only=True)
class BitFit(Strategy):
    """Every bias of the U-Net, those of the norms included; nothing is added.

    Source: Ben Zaken et al. 2021, "BitFit: Simple Parameter-efficient Fine-tuning".
    """

    name = "bitfit"

    def inject(self, models: DiffusionModels) -> None:
        """Let the biases train."""
        for path, parameter in models.unet.named_parameters():
            parameter.requires_grad_(path.endswith(".bias"))
