"""What training costs in operations, counted on shapes: unlike seconds it does not depend on what else the machine does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trainables.base_models.models import DiffusionModels, states_width, text_states
from trainables.loss import DenoisingLoss
from trainables.strategies.base import Strategy


def operations_per_image(models: DiffusionModels, strategy: Strategy, *, cached: bool = True) -> int:
    """Floating-point operations of one training image: its loss, and the gradients of what trains.

    Matrix products, convolutions and attention are counted, a multiplication and an addition as two; what is left out
    (norms, activations, the optimiser's step) is a few per cent. Recomputation of activations is not counted.

    Args:
        models: a base on the meta device, which needs no weights, with the strategy attached.
        strategy: what trains.
        cached: whether latents and prompt embeddings of frozen encoders come from the cache; their passes count otherwise.

    Returns:
        A whole number; lower is cheaper. Exact for the shapes that training begins with.
    """
    for name, module in models.components().items():
        module.to("meta").train(name in strategy.trains)
    loss = DenoisingLoss(
        models,
        reconstruction_weight=strategy.reconstruction_weight,
        penalty=lambda: strategy.penalty(models),
    )
    loss.text_encoder, loss.vae = models.text_encoder, models.vae  # left out of training where they have no weights
    with FlopCounterMode(display=False) as counter:
        total = loss(_one_image(models, strategy, cached=cached))
        total.backward()
    return int(counter.get_total_flops())


def _one_image(models: DiffusionModels, strategy: Strategy, *, cached: bool) -> dict[str, Tensor]:
    """A batch of one as training feeds it, without values."""
    config = _unet_config(models)
    size, channels = config.sample_size, config.in_channels
    latents = torch.empty(1, channels, size, size, device="meta")
    batch = {"noise": latents, "timesteps": torch.zeros(1, dtype=torch.int64, device="meta")}
    if cached and "vae" not in strategy.trains:
        batch["latents"] = latents
    else:
        vae: Any = models.vae
        pixels = size * 2 ** (len(vae.config.block_out_channels) - 1)
        batch |= {"pixels": torch.empty(1, 3, pixels, pixels, device="meta"), "latent_noise": latents}
    length = models.tokenizer.model_max_length
    if cached and "text_encoder" not in strategy.trains:
        batch["prompt_states"] = torch.empty(1, length, states_width(models.unet), device="meta")
    else:
        batch["token_ids"] = torch.zeros(1, length, dtype=torch.int64, device="meta")
    return batch


@dataclass(frozen=True, kw_only=True)
class FilmOperations:
    """Floating-point operations of one generated film.

    Attributes:
        once: of its prompts and the decoder.
        each_step: of the U-Net at each step of the solver.
    """

    once: int
    each_step: int

    def in_steps(self, num_steps: int) -> int:
        """All of them, where the solver takes so many steps; lower is cheaper."""
        return self.once + num_steps * self.each_step


def operations_per_film(models: DiffusionModels, *, guidance_scale: float) -> FilmOperations:
    """Floating-point operations of one generated film: its prompts, the U-Net at every step, the decoder.

    Args:
        models: a base on the meta device, which needs no weights.
        guidance_scale: of the prompt; above 1 each step passes the U-Net twice.
    """
    unet, vae = models.unet.to("meta"), models.vae.to("meta")
    passes, config = 2 if guidance_scale > 1 else 1, _unet_config(models)
    latents = torch.empty(passes, config.in_channels, config.sample_size, config.sample_size, device="meta")
    token_ids = torch.zeros(passes, models.tokenizer.model_max_length, dtype=torch.int64, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        states = text_states(models.text_encoder.to("meta"), token_ids)
        vae.decode(latents[:1])
    with torch.no_grad(), FlopCounterMode(display=False) as each_step:
        unet(latents, torch.zeros(passes, dtype=torch.int64, device="meta"), states)
    return FilmOperations(once=int(once.get_total_flops()), each_step=int(each_step.get_total_flops()))


def _unet_config(models: DiffusionModels) -> Any:
    return models.unet.config
