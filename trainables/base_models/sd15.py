"""Stable Diffusion 1.5's architecture in Python, to count without weights and to write folders of its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainables.base_models.meta import Unfilled
from trainables.base_models.models import HUB_IDS, MINI_FOLDER, BaseIdentity, DiffusionModels

UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}
VAE = {
    "sample_size": 512,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
FULL_NORM_GROUPS = 32
WIDTH_DIVISORS = (1, 2, 4, 8)
"""Numbers by which the widths of Stable Diffusion 1.5 can be divided so that each block keeps whole heads and norm
groups."""


def sd15_on_meta() -> DiffusionModels:
    """Stable Diffusion 1.5 without weights: shapes and names only, on the meta device."""
    return sd15_on("meta")


def sd15_on(device: torch.device | str) -> DiffusionModels:
    """Stable Diffusion 1.5 with random weights, made on a device: to time, or on the meta device to count.

    The tokenizer is the bundled one; no vocabulary is needed for either.
    """
    with torch.device(device), Unfilled():
        unet, vae, text_encoder = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), _text_encoder(TEXT_ENCODER)
    return DiffusionModels(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=bundled_tokenizer(),
        scheduler_config=dict(PNDMScheduler(**NOISE_SCHEDULE).config),
        base=BaseIdentity(name="sd15", source=HUB_IDS["sd15"], weights_hash="none"),
    )


def write_sd15_layout(
    folder: Path,
    *,
    width_divisor: int = 8,
    latent_side: int = 64,
    tokenizer: CLIPTokenizer | None = None,
    seed: int = 0,
) -> None:
    """Write a pipeline folder of Stable Diffusion 1.5's layout with random weights, thinner than the real one.

    Blocks, layers and heads are as many as in SD 1.5; only the widths are divided.

    Args:
        folder: where to write.
        width_divisor: divides every channel and hidden size: 1 (the full size), 2, 4 or 8.
        latent_side: side of the latents, a multiple of 8; images are 8 times as large.
        tokenizer: its vocabulary also sizes the text encoder; the bundled one if none is given.
        seed: of the random weights.

    Raises:
        ValueError: the divisor is none of these.
    """
    if width_divisor not in WIDTH_DIVISORS:
        raise ValueError(f"`width_divisor` must be 1, 2, 4 or 8, but got {width_divisor}. Try 8.")
    tokenizer = tokenizer or bundled_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _random_parts(width_divisor, latent_side, len(tokenizer))
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(**NOISE_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _random_parts(divisor: int, latent_side: int, vocab_size: int) -> dict[str, Any]:
    text = TEXT_ENCODER | {"vocab_size": vocab_size}
    text |= {key: TEXT_ENCODER[key] // divisor for key in ("hidden_size", "intermediate_size", "projection_dim")}  # type: ignore[operator]
    cross_attention_dim = 768 // divisor
    return {
        "unet": UNet2DConditionModel(
            **_thinner(UNET, divisor) | {"sample_size": latent_side, "cross_attention_dim": cross_attention_dim}
        ),
        "vae": AutoencoderKL(**_thinner(VAE, divisor) | {"sample_size": latent_side * 8}),
        "text_encoder": _text_encoder(text),
    }


def _thinner(config: dict[str, Any], divisor: int) -> dict[str, Any]:
    widths = tuple(width // divisor for width in config["block_out_channels"])
    return config | {"block_out_channels": widths, "norm_num_groups": max(FULL_NORM_GROUPS // divisor, 1)}


def _text_encoder(config: dict[str, Any]) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**config))


def bundled_tokenizer() -> CLIPTokenizer:
    """The mini base's tokenizer, for models that need one but no vocabulary in particular."""
    return CLIPTokenizer.from_pretrained(MINI_FOLDER, subfolder="tokenizer")
