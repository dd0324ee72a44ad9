"""Images from prompts: few-step sampling whose result for a prompt and seed does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.feeding import images_at_a_time

SOLVER: Final = "dpmsolverpp_2m-trailing"
"""What `noise_scheduler_of` gives, DPM-Solver++(2M), for keys of what depends on it, which are names of files too."""
OnProgress = Callable[[int], None]
Embeddings = dict[str, Tensor]


def noise_scheduler_of(scheduler_config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """The few-step solver on the base's own noise schedule.

    The steps are spaced from the noisiest level down: SD 1.5's "leading" spacing would start few-step sampling from
    pure noise at a level that still expects some signal.

    Source: Lu et al. 2022, "DPM-Solver++"; Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are
    Flawed", section 3.3.
    """
    return DPMSolverMultistepScheduler.from_config(dict(scheduler_config), timestep_spacing="trailing")


def pipeline_of(models: DiffusionModels) -> StableDiffusionPipeline:
    """The models as a Stable Diffusion pipeline with the engine's noise scheduler; weights are shared, not copied."""
    pipeline = StableDiffusionPipeline(
        vae=models.vae,
        text_encoder=models.text_encoder,
        tokenizer=models.tokenizer,
        unet=models.unet,
        scheduler=noise_scheduler_of(models.scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    models: DiffusionModels,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_steps: int,
    guidance_scale: float,
    batch_size: int,
    on_progress: OnProgress | None = None,
) -> NDArray[np.uint8]:
    """One image for each prompt and seed.

    The noise is drawn per image on the CPU, so that it is the same on any device, in any batch and in every trial.

    Args:
        models: what to sample from, on its device and in its numerics.
        prompts: one prompt an image.
        seeds: one seed an image.
        num_steps: steps of the solver, at least 1.
        guidance_scale: weight of classifier-free guidance; 1 or less samples without it, in half the time.
        batch_size: images at a time.
        on_progress: called with the number of finished images after each batch.

    Returns:
        uint8[n, height_px, width_px, 3].

    Raises:
        ValueError: prompts and seeds differ in number, a number is out of its range, or a pixel is not a number.
    """
    side = models.resolution_px
    images = np.empty((len(prompts), side, side, 3), np.uint8)
    start = 0
    for batch in generate_batches(
        models, prompts, seeds, num_steps=num_steps, guidance_scale=guidance_scale, batch_size=batch_size
    ):
        images[start : start + len(batch)] = to_uint8(batch).cpu().numpy()
        start += len(batch)
        if on_progress is not None:
            on_progress(len(batch))
    return images


@torch.inference_mode()
def generate_batches(
    models: DiffusionModels,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    num_steps: int,
    guidance_scale: float,
    batch_size: int,
    chosen: range | None = None,
) -> Iterator[Tensor]:
    """The images of `generate` a batch at a time, for those who need not hold all of them.

    Args:
        models: what to sample from, on its device and in its numerics.
        prompts: one prompt an image.
        seeds: one seed an image.
        num_steps: steps of the solver, at least 1.
        guidance_scale: weight of classifier-free guidance; 1 or less samples without it.
        batch_size: images at a time.
        chosen: numbers of the batches to make, from 0; None: all. Whoever makes the others gives the same bits as one
            who makes them all: batches are of the same images, and all prompts are encoded in either case.

    Returns:
        float32[batch_size, height_px, width_px, 3] in [0, 1] each, on the models' device, the last one of what is left.

    Raises:
        ValueError: prompts and seeds differ in number, a number is out of its range, or a pixel is not a number.
    """
    _check(prompts, seeds, num_steps=num_steps, batch_size=batch_size)
    pipeline = pipeline_of(models)
    _expect_few_steps(num_steps, int(pipeline.scheduler.config.num_train_timesteps))
    with evaluating(models):
        states = _encode(pipeline, models, ["", *prompts] if guidance_scale > 1 else prompts, batch_size)
        for number in range(num_batches(len(prompts), batch_size)) if chosen is None else chosen:
            images = slice(number * batch_size, (number + 1) * batch_size)
            pipeline.scheduler.set_timesteps(num_steps, device=models.unet.device)
            noise = _noise(models, seeds[images])
            given = _conditions(states, prompts[images], is_guided=guidance_scale > 1)
            latents = _denoised(models, pipeline.scheduler, noise, states=given, guidance_scale=guidance_scale)
            yield _decoded(models, latents)


def num_batches(num_images: int, batch_size: int) -> int:
    """Into how many batches so many images are divided."""
    return -(-num_images // batch_size)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to nearest, on their device."""
    return (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


@contextmanager
def evaluating(models: DiffusionModels) -> Iterator[None]:
    """Put the models into evaluation mode, and afterwards back into the mode that each was in."""
    modes = {name: module.training for name, module in models.components().items()}
    try:
        for module in models.components().values():
            module.eval()
        yield
    finally:
        for name, module in models.components().items():
            module.train(modes[name])


def _check(prompts: Sequence[str], seeds: Sequence[int], *, num_steps: int, batch_size: int) -> None:
    if len(prompts) != len(seeds):
        raise ValueError(
            f"`seeds` must be as many as `prompts` ({len(prompts)}), but got {len(seeds)}. Give one seed an image."
        )
    for name, value in {"num_steps": num_steps, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {value}. Try 8.")


def _expect_few_steps(num_steps: int, most: int) -> None:
    if num_steps > most:
        raise ValueError(
            f"`num_steps` must be at most the {most} steps of the base's noise schedule, but got {num_steps}. Try 20."
        )


def _encode(
    pipeline: StableDiffusionPipeline, models: DiffusionModels, prompts: Sequence[str], batch_size: int
) -> Embeddings:
    """Each distinct prompt's embedding, [tokens, width], in the U-Net's precision."""
    distinct = list(dict.fromkeys(prompts))
    embeddings: Embeddings = {}
    for start in range(0, len(distinct), batch_size):
        texts = distinct[start : start + batch_size]
        spelled = [models.spelled(text) for text in texts]
        encoded, _ = pipeline.encode_prompt(
            spelled, models.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        embeddings.update(zip(texts, encoded.to(models.numerics.dtype), strict=True))
    return embeddings


def _conditions(embeddings: Embeddings, prompts: Sequence[str], *, is_guided: bool) -> Tensor:
    """One batch's embeddings, after as many of the empty prompt where guidance needs them."""
    states = torch.stack([embeddings[prompt] for prompt in prompts])
    return torch.cat([embeddings[""].expand_as(states), states]) if is_guided else states


def _noise(models: DiffusionModels, seeds: Sequence[int]) -> Tensor:
    """What a batch starts from, float32[n, 4, h, w], drawn on the CPU by each image's own seed."""
    config: Any = models.unet.config
    shape = (config.in_channels, config.sample_size, config.sample_size)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(drawn).to(models.unet.device)


def _denoised(
    models: DiffusionModels,
    solver: DPMSolverMultistepScheduler,
    latents: Tensor,
    *,
    states: Tensor,
    guidance_scale: float,
) -> Tensor:
    """The latents at the end of the solver's steps, float32[n, 4, h, w]; what it sums up is in float32 in any precision."""
    is_guided = len(states) > len(latents)
    for timestep in solver.timesteps:
        scaled = solver.scale_model_input(torch.cat([latents, latents]) if is_guided else latents, timestep)
        predicted = models.unet(_as_computed(models, scaled), timestep, states).sample.float()
        if is_guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + guidance_scale * (with_prompt - without)
        latents = solver.step(predicted, timestep, latents).prev_sample
    return latents


def _decoded(models: DiffusionModels, latents: Tensor) -> Tensor:
    """Images float32[n, H, W, 3] in [0, 1]; few are decoded at a time, as the decoder holds 67 MB for each of 512 px.

    Raises:
        ValueError: one is not finite, which would pass for black once it is in bytes.
    """
    scaled = latents / float(models.vae.config.scaling_factor)
    parts = [
        models.vae.decode(_as_computed(models, part)).sample.float()
        for part in torch.split(scaled, images_at_a_time(models.resolution_px))
    ]
    images = torch.cat(parts)
    broken = int((~images.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"`images` must be finite, but got NaN or infinity in {broken} of {len(images)}. The weights have diverged; "
            "train with a lower learning rate. If they sample well with evaluation.precision=fp32, they do not fit into fp16."
        )
    return (images * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _as_computed(models: DiffusionModels, latents: Tensor) -> Tensor:
    """Latents in the precision and layout that U-Net and autoencoder compute in."""
    return latents.to(models.numerics.dtype, memory_format=models.numerics.memory_format)
