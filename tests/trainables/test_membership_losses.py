"""Losses of single films, and films through the autoencoder: against one-by-one computation and the training's own loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainables.autoencoding import reconstruct
from trainables.base_models.models import DiffusionModels, load_base
from trainables.feeding import encode_prompts, to_pixels
from trainables.loss import DenoisingLoss
from trainables.membership_losses import TIMESTEPS, membership_losses

PROMPTS = ("Chest X-ray of a subject with edema", "Chest X-ray of a subject with no finding", "a red circle")


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini")


@pytest.fixture(scope="module")
def moments(base: DiffusionModels) -> NDArray[np.float32]:
    """Of three films of noise and shade."""
    shade = np.linspace(40, 200, 64)[:, None] * np.ones(64)
    noise = np.random.default_rng(0).normal(0, [[[2.0]], [[20.0]], [[50.0]]], (3, 64, 64))
    films = np.clip(shade + noise, 0, 255).astype(np.uint8)
    with torch.no_grad():
        parameters: NDArray[np.float32] = base.vae.encode(to_pixels(films)).latent_dist.parameters.numpy()
    return parameters


@pytest.mark.slow
def test_a_film_has_the_trainings_loss_whatever_its_batch(base: DiffusionModels, moments: NDArray[np.float32]) -> None:
    losses = membership_losses(base, moments, PROMPTS, num_draws=3, seed=5, batch_size=2)
    generator = torch.Generator().manual_seed(5)
    latents = torch.from_numpy(moments[:, :4]) * base.vae.config.scaling_factor
    totals = np.zeros(3)
    for timestep in (int(step) for step in np.linspace(*TIMESTEPS, 3) * 999):
        noise = torch.randn(latents.shape[1:], generator=generator)
        for row, prompt in enumerate(PROMPTS):
            batch = {
                "latents": latents[row : row + 1],
                "noise": noise[None],
                "timesteps": torch.tensor([timestep]),
                "prompt_states": torch.from_numpy(encode_prompts(base, [prompt])),
            }
            with torch.no_grad():
                totals[row] += float(DenoisingLoss(base)(batch))
    assert losses == pytest.approx(totals / 3, rel=1e-5)


@pytest.mark.slow
def test_a_film_that_is_trained_on_alone_gets_a_lower_loss(base: DiffusionModels, moments: NDArray[np.float32]) -> None:
    models = base.fresh()
    models.unet.requires_grad_(True)
    before = membership_losses(models, moments, PROMPTS)
    optimizer, loss = torch.optim.AdamW(models.unet.parameters(), lr=1e-3), DenoisingLoss(models)
    latents = torch.from_numpy(moments[:1, :4]) * models.vae.config.scaling_factor
    states = torch.from_numpy(encode_prompts(models, PROMPTS[:1]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        batch = {
            "latents": latents.expand(8, -1, -1, -1),
            "prompt_states": states.expand(8, -1, -1),
            "noise": torch.randn((8, *latents.shape[1:]), generator=generator),
            "timesteps": torch.randint(0, 400, (8,), generator=generator),
        }
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    change = membership_losses(models, moments, PROMPTS) - before
    assert change[0] < 0 and change[0] == change.min()


def test_films_and_captions_must_be_equally_many(base: DiffusionModels, moments: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"`prompts` must be 3, one a film, but got 2\. Give"):
        membership_losses(base, moments, PROMPTS[:2])


def test_a_film_comes_back_much_as_it_was(base: DiffusionModels) -> None:
    y, x = np.mgrid[:64, :64]
    films = np.stack([128 + 90 * np.sin(x / 9), 60 + 2.0 * y]).astype(np.uint8)
    back = reconstruct(base, films)
    assert back.dtype == np.uint8 and back.shape == films.shape
    errors = np.abs(back.astype(float) - films).mean(axis=(1, 2))
    others = np.abs(back[::-1].astype(float) - films).mean(axis=(1, 2))
    assert (errors < 15).all() and (errors < others / 2).all()
