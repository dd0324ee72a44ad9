"""The denoising loss against closed forms and diffusers' own weighting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.feeding import encode_prompts, to_pixels
from trainables.loss import DenoisingLoss, sample_latents


class _Knows(nn.Module):
    """Predicts the given noise plus a constant error."""

    def __init__(self, noise: Tensor, error: float) -> None:
        super().__init__()
        self.answer = noise + error

    def forward(self, *_: Tensor, **__: Tensor) -> object:
        return type("Output", (), {"sample": self.answer})


def _batch(base: DiffusionModels, count: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(count, 4, 16, 16, generator=generator),
        "noise": torch.randn(count, 4, 16, 16, generator=generator),
        "timesteps": torch.randint(0, 1000, (count,), generator=generator),
        "prompt_states": torch.from_numpy(encode_prompts(base, ["a red circle"] * count)),
    }


def _predicting(base: DiffusionModels, prediction_type: str) -> DiffusionModels:
    return replace(base, scheduler_config={**base.scheduler_config, "prediction_type": prediction_type})


def test_loss_of_a_constant_error_is_its_square(base: DiffusionModels) -> None:
    batch = _batch(base)
    loss = DenoisingLoss(base)
    loss.unet = _Knows(batch["noise"], 0.5)
    assert loss(batch).item() == pytest.approx(0.25, rel=1e-6)


def test_min_snr_weights_match_the_definition_from_diffusers_snr(base: DiffusionModels) -> None:
    batch = _batch(base)
    loss = DenoisingLoss(base, min_snr_gamma=5.0)
    loss.unet = _Knows(batch["noise"], 0.5)
    snr = compute_snr(loss.noise_scheduler, batch["timesteps"])
    expected = (0.25 * torch.minimum(snr, torch.tensor(5.0)) / snr).mean()
    assert loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("prediction_type", "limit"), [("epsilon", 1.0), ("v_prediction", 0.0)])
def test_min_snr_weights_have_their_limit_where_nothing_of_the_image_is_left(
    base: DiffusionModels, prediction_type: str, limit: float
) -> None:
    """At zero terminal SNR (Lin et al. 2023), min(SNR, gamma) / SNR tends to 1, and over SNR + 1 to 0."""
    zero_terminal = replace(base, scheduler_config={**base.scheduler_config, "rescale_betas_zero_snr": True})
    batch = {**_batch(base), "timesteps": torch.full((6,), 999)}
    loss = DenoisingLoss(_predicting(zero_terminal, prediction_type), min_snr_gamma=5.0)
    assert loss.noise_scheduler.alphas_cumprod[999] == 0
    loss.unet = _Knows(batch["noise"] if prediction_type == "epsilon" else -batch["latents"], 0.5)
    assert loss(batch).item() == pytest.approx(0.25 * limit, rel=1e-6)


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_velocity_is_predicted_where_the_base_predicts_it(base: DiffusionModels, gamma: float | None) -> None:
    """v = sqrt(a) noise - sqrt(1 - a) latents; min-SNR divides by SNR + 1 there (Salimans and Ho 2022, Hang et al. 2023)."""
    batch = _batch(base)
    loss = DenoisingLoss(_predicting(base, "v_prediction"), min_snr_gamma=gamma)
    kept = loss.noise_scheduler.alphas_cumprod[batch["timesteps"]].view(-1, 1, 1, 1)
    loss.unet = _Knows(kept.sqrt() * batch["noise"] - (1 - kept).sqrt() * batch["latents"], 0.5)
    snr = compute_snr(loss.noise_scheduler, batch["timesteps"])
    weights = torch.ones(()) if gamma is None else snr.clamp(max=gamma) / (snr + 1)
    assert loss(batch).item() == pytest.approx(0.25 * weights.mean().item(), rel=1e-5)


def test_a_base_that_predicts_neither_is_refused(base: DiffusionModels) -> None:
    with pytest.raises(ValueError, match="`prediction_type` must be epsilon or v_prediction, but got 'sample'"):
        DenoisingLoss(_predicting(base, "sample"))


def test_loss_equals_the_pipeline_parts_written_out(base: DiffusionModels) -> None:
    batch = _batch(base)
    alphas = DenoisingLoss(base).noise_scheduler.alphas_cumprod[batch["timesteps"]].view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * batch["latents"] + (1 - alphas).sqrt() * batch["noise"]
    with torch.no_grad():
        predicted = base.unet(noisy, batch["timesteps"], encoder_hidden_states=batch["prompt_states"]).sample
        expected = ((predicted - batch["noise"]) ** 2).mean()
        assert DenoisingLoss(base)(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_latents_have_the_posteriors_mean_and_deviation(base: DiffusionModels) -> None:
    pixels = to_pixels(torch.randint(0, 255, (2, 64, 64), dtype=torch.uint8).numpy())
    with torch.no_grad():
        posterior = base.vae.encode(pixels).latent_dist
        moments = base.vae.encode(pixels).latent_dist.parameters
    mean = sample_latents(moments, torch.zeros_like(posterior.mean), 2.0)
    shifted = sample_latents(moments, torch.ones_like(posterior.mean), 2.0)
    torch.testing.assert_close(mean, 2 * posterior.mean)
    torch.testing.assert_close(shifted - mean, 2 * posterior.std, rtol=1e-4, atol=1e-5)


def test_the_reconstruction_error_is_added_at_its_weight(base: DiffusionModels) -> None:
    pixels = to_pixels(
        torch.randint(0, 255, (2, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    )
    batch = {**_batch(base, 2), "pixels": pixels, "latent_noise": torch.ones(2, 4, 16, 16)}
    del batch["latents"]
    with torch.no_grad():
        posterior = base.vae.encode(pixels).latent_dist
        decoded = base.vae.decode(posterior.mean + posterior.std).sample
        expected = DenoisingLoss(base)(batch) + 0.3 * ((decoded - pixels) ** 2).mean()
        assert DenoisingLoss(base, reconstruction_weight=0.3)(batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_penalty_is_added_to_the_loss(base: DiffusionModels) -> None:
    batch = _batch(base)
    with torch.no_grad():
        plain, with_penalty = DenoisingLoss(base)(batch), DenoisingLoss(base, penalty=lambda: torch.tensor(0.5))(batch)
    assert with_penalty.item() == pytest.approx(plain.item() + 0.5)
