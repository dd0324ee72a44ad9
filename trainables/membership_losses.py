"""The denoising loss of single films under an adapted model: what a membership test compares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.base_models.models import DiffusionModels
from trainables.datasets.store import PreparedSplit
from trainables.feeding import encode_images, encode_prompts
from trainables.loss import DenoisingLoss
from trainables.sampling import evaluating

NUM_DRAWS = 8
TIMESTEPS = (0.05, 0.3)
"""Shares of the noise schedule between which the loss tells most of single films (Carlini et al. 2023, Extracting
Training Data from Diffusion Models): earlier there is hardly any noise to predict, later hardly any film left."""


@torch.inference_mode()
def membership_losses(
    models: DiffusionModels,
    moments: NDArray[np.float32],
    prompts: Sequence[str],
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    batch_size: int = 64,
) -> NDArray[np.float64]:
    """Mean squared error of the predicted noise for each film, over the same timesteps and noises for all films.

    Args:
        models: the adapted model, on its device.
        moments: float32[n, 8, h, w] of the films, from `encode_images`; their means are what noise is added to.
        prompts: the caption of each film.
        num_draws: timesteps, evenly spread, each with a noise of its own.
        seed: of the noises.
        batch_size: films at a time.

    Returns:
        float64[n], at least 0; a film that the model knows by heart has a lower one.

    Raises:
        ValueError: not as many prompts as films.
    """
    if len(prompts) != len(moments):
        raise ValueError(f"`prompts` must be {len(moments)}, one a film, but got {len(prompts)}. Give one a film.")
    latents = _means(models, moments)
    distinct = sorted(set(prompts))
    with evaluating(models):
        states = torch.from_numpy(encode_prompts(models, distinct))
        place = {prompt: row for row, prompt in enumerate(distinct)}
        rows = torch.tensor([place[prompt] for prompt in prompts])
        loss = DenoisingLoss(models)
        totals = torch.zeros(len(latents), dtype=torch.float64)
        for timestep, noise in _draws(models, latents, num_draws, seed):
            for part in torch.split(torch.arange(len(latents)), batch_size):
                batch = _batch(latents[part], states[rows[part]], (timestep, noise), models.unet.device)
                totals[part] += loss.errors(batch["latents"], batch).double().cpu()
    means: NDArray[np.float64] = (totals / num_draws).numpy()
    return means


def split_moments(models: DiffusionModels, data: PreparedSplit, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Moments of some films of a split, float32[n, 8, h, w], by the models' own autoencoder.

    Args:
        models: on their device.
        data: the split.
        rows: int64[n] of the films.
    """
    with evaluating(models):
        return encode_images(models, data, rows)


def _means(models: DiffusionModels, moments: NDArray[np.float32]) -> torch.Tensor:
    """Scaled means of the posteriors: no draw of latents disturbs the comparison."""
    mean = torch.from_numpy(np.array(moments)).chunk(2, dim=1)[0]
    return mean * float(models.vae.config.scaling_factor)


def _draws(models: DiffusionModels, latents: torch.Tensor, num_draws: int, seed: int) -> list[tuple[int, torch.Tensor]]:
    """Timesteps and noises [4, h, w]."""
    num_timesteps = int(models.scheduler_config["num_train_timesteps"])
    timesteps = np.linspace(*TIMESTEPS, num_draws) * (num_timesteps - 1)
    generator = torch.Generator().manual_seed(seed)
    return [(int(step), torch.randn(latents.shape[1:], generator=generator)) for step in timesteps]


def _batch(
    latents: torch.Tensor, states: torch.Tensor, draw: tuple[int, torch.Tensor], device: torch.device
) -> dict[str, torch.Tensor]:
    timestep, noise = draw
    batch = {
        "latents": latents,
        "prompt_states": states,
        "noise": noise.expand_as(latents),
        "timesteps": torch.full((len(latents),), timestep),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}
