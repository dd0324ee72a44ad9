"""Full fine-tuning: every parameter of one part of the base; combinations train several parts."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy
from trainables.strategies.low_rank import expect_positive


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Every parameter of the parts in `trains`; the others stay frozen."""

    def inject(self, models: DiffusionModels) -> None:
        """Let the whole of each part train."""
        for component in self.trains:
            models.component(component).requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class FullUNet(Full):
    """Every parameter of the U-Net."""

    name = "unet"


@dataclass(frozen=True, kw_only=True)
class FullTextEncoder(Full):
    """Every parameter of the text encoder."""

    name = "text_encoder"

    @property
    def trains(self) -> tuple[str, ...]:
        """The text encoder."""
        return ("text_encoder",)


@dataclass(frozen=True, kw_only=True)
class FullAutoencoder(Full):
    """Every parameter of the autoencoder, with its reconstruction error in the loss.

    The denoising error reaches the encoder as well, as in the source: latents that are easy to denoise lower it, so a
    small weight lets them lose what films show.

    Attributes:
        reconstruction_weight: of the mean squared error between films, in -1 to 1, and what is decoded from their latents.

    Source: TehraniNasab et al. 2025, "Pixels under Pressure" (VAE fine-tuned with the others, weight 1).
    """

    name = "vae"

    reconstruction_weight: float = 1.0

    def __post_init__(self) -> None:
        remedy = "Try 1, or leave the autoencoder frozen."
        expect_positive(self.reconstruction_weight, "reconstruction_weight", remedy)

    @property
    def trains(self) -> tuple[str, ...]:
        """The autoencoder."""
        return ("vae",)
