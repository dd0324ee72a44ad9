"""The loss that strategies minimise: denoising, and what some add to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from trainables.base_models.checking import PREDICTIONS
from trainables.base_models.models import DiffusionModels, text_states


def sample_latents(moments: Tensor, noise: Tensor, scaling_factor: float) -> Tensor:
    """Draw scaled latents from the autoencoder's posterior.

    Args:
        moments: float[n, 8, h, w], means and log variances as the encoder gives them.
        noise: float[n, 4, h, w], standard normal.
        scaling_factor: the autoencoder's.
    """
    posterior = DiagonalGaussianDistribution(moments)
    latents: Tensor = posterior.mean + posterior.std * noise
    return latents * scaling_factor


def training_noise_scheduler(scheduler_config: Mapping[str, Any]) -> DDPMScheduler:
    """The noise schedule of training, from a pipeline's scheduler configuration."""
    return DDPMScheduler.from_config(dict(scheduler_config))


class DenoisingLoss(nn.Module):
    """Weighted mean squared error of the predicted noise (or velocity) over a batch, and what a strategy adds to it.

    Args:
        models: the U-Net and, where prompts come as token ids, the text encoder are trained through this module.
        min_snr_gamma: weight each timestep by min(SNR, gamma) / SNR, for a velocity by min(SNR, gamma) / (SNR + 1)
            (Hang et al. 2023, section 3.4); None: all alike.
        reconstruction_weight: adds that many times the mean squared error of what is decoded from the drawn latents,
            against the films in -1 to 1; batches then come with `pixels`.
        penalty: gives what the strategy adds to the loss of each batch, or None.

    Raises:
        ValueError: the base model predicts neither noise nor velocity.
    """

    def __init__(
        self,
        models: DiffusionModels,
        *,
        min_snr_gamma: float | None = None,
        reconstruction_weight: float = 0.0,
        penalty: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        super().__init__()
        self.reconstruction_weight, self.penalty = reconstruction_weight, penalty
        self.unet = models.unet
        # Encoders without weights are not needed, and could not be moved to a device.
        self.text_encoder: Any = models.text_encoder if models.is_loaded("text_encoder") else None
        self.vae: Any = models.vae if models.is_loaded("vae") else None
        self.noise_scheduler = training_noise_scheduler(models.scheduler_config)
        self.min_snr_gamma = min_snr_gamma
        predicts = self.noise_scheduler.config.prediction_type
        if predicts not in PREDICTIONS:
            raise ValueError(
                f"`prediction_type` must be {' or '.join(PREDICTIONS)}, but got {predicts!r}. Use another base model."
            )

    def forward(self, batch: Mapping[str, Tensor], num_counted: int | None = None) -> Tensor:
        """Mean loss of a batch.

        Args:
            batch: `latents` float[n, 4, h, w] or `pixels` float[n, 3, H, W] in -1 to 1; `prompt_states` float[n, t, d] or
                `token_ids` int[n, t]; `noise` like the latents; `timesteps` int[n].
            num_counted: how many of its images count, the first ones; the others give the batch its size, and weigh 0.
                None: all.

        Returns:
            A scalar, lower is better.
        """
        latents = batch["latents"] if "latents" in batch else self._encode(batch)
        loss = self._denoising(latents, batch, num_counted)
        if self.reconstruction_weight:
            loss = loss + self.reconstruction_weight * self._reconstruction(
                latents[:num_counted], batch["pixels"][:num_counted]
            )
        penalty = self.penalty()
        return loss if penalty is None else loss + penalty

    def _denoising(self, latents: Tensor, batch: Mapping[str, Tensor], num_counted: int | None) -> Tensor:
        weighted = self.errors(latents, batch) * self._weights(batch["timesteps"])
        loss: Tensor = weighted[:num_counted].mean()
        return loss

    def errors(self, latents: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error of what is predicted for each image, float[n], of a batch as `forward` takes it."""
        noise, timesteps = batch["noise"], batch["timesteps"]
        states = (
            batch["prompt_states"] if "prompt_states" in batch else text_states(self.text_encoder, batch["token_ids"])
        )
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        errors: Tensor = (predicted.float() - self._target(latents, noise, timesteps).float()).square()
        return errors.mean(dim=(1, 2, 3))

    def _reconstruction(self, latents: Tensor, pixels: Tensor) -> Tensor:
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        error: Tensor = (decoded.float() - pixels).square().mean()
        return error

    def _encode(self, batch: Mapping[str, Tensor]) -> Tensor:
        moments = self.vae.encode(batch["pixels"]).latent_dist.parameters
        return sample_latents(moments, batch["latent_noise"], self.vae.config.scaling_factor)

    def _target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.noise_scheduler.config.prediction_type == "v_prediction":
            velocity: Tensor = self.noise_scheduler.get_velocity(latents, noise, timesteps)
            return velocity
        return noise

    def _weights(self, timesteps: Tensor) -> Tensor:
        if self.min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        kept: Tensor = self.noise_scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = kept / (1 - kept)
        if self.noise_scheduler.config.prediction_type == "v_prediction":
            return torch.clamp(snr, max=self.min_snr_gamma) / (snr + 1)
        return torch.clamp(self.min_snr_gamma / snr, max=1.0)  # also at SNR 0, where the quotient is infinite
