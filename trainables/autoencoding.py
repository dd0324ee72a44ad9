"""Films sent through an autoencoder and back: what is left of them is the most that a latent model can show."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.base_models.models import DiffusionModels
from trainables.feeding import images_at_a_time, to_pixels
from trainables.sampling import evaluating, to_uint8


@torch.inference_mode()
def reconstruct(models: DiffusionModels, films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode films to the mean of their posterior, and decode it.

    Args:
        models: with the autoencoder, on its device.
        films: uint8[n, H, W], grey.

    Returns:
        uint8[n, H, W], the mean of the decoded colours.
    """
    step = images_at_a_time(films.shape[-1])
    with evaluating(models):
        parts = [_reconstructed(models, films[start : start + step]) for start in range(0, len(films), step)]
    return np.concatenate(parts)


def _reconstructed(models: DiffusionModels, films: NDArray[np.uint8]) -> NDArray[np.uint8]:
    latents = models.vae.encode(to_pixels(films).to(models.vae.device)).latent_dist.mode()
    decoded = models.vae.decode(latents).sample.float().mean(dim=1)
    return to_uint8(decoded / 2 + 0.5).cpu().numpy()
