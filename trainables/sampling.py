"""Images from prompts: few-step sampling whose result for a prompt and seed does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from trainables.base_models.models import DiffusionModels

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
        models: What to sample from, on its device.
        prompts: One prompt an image.
        seeds: One seed an image.
        num_steps: Steps of the solver, at least 1.
        guidance_scale: Weight of classifier-free guidance; 1 or less samples without it, in half the time.
        batch_size: Images at a time.
        on_progress: Called with the number of finished images after each batch.

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
        images[start : start + len(batch)] = to_uint8(batch)
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
) -> Iterator[NDArray[np.float32]]:
    """The images of `generate` a batch at a time, for those who need not hold all of them.

    Args:
        models: What to sample from, on its device.
        prompts: One prompt an image.
        seeds: One seed an image.
        num_steps: Steps of the solver, at least 1.
        guidance_scale: Weight of classifier-free guidance; 1 or less samples without it.
        batch_size: Images at a time.

    Returns:
        float32[batch_size, height_px, width_px, 3] in [0, 1] each, the last one of what is left.

    Raises:
        ValueError: prompts and seeds differ in number, a number is out of its range, or a pixel is not a number.
    """
    _check(prompts, seeds, num_steps=num_steps, batch_size=batch_size)
    pipeline = pipeline_of(models)
    _expect_few_steps(num_steps, int(pipeline.scheduler.config.num_train_timesteps))
    options = {"num_inference_steps": num_steps, "guidance_scale": guidance_scale, "output_type": "np"}
    with evaluating(models):
        embeddings = _encode(pipeline, models, ["", *prompts] if guidance_scale > 1 else prompts, batch_size)
        for start in range(0, len(prompts), batch_size):
            chosen = slice(start, start + batch_size)
            inputs = _inputs(embeddings, prompts[chosen], seeds[chosen])
            yield _finite(pipeline(**inputs, **options).images)


def to_uint8(images: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8, rounded to nearest."""
    bytes_: NDArray[np.uint8] = (np.clip(images, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return bytes_


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


def _finite(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Refuse what would pass for black once it is in bytes."""
    broken = int(np.count_nonzero(~np.isfinite(images).all(axis=(1, 2, 3))))
    if broken:
        raise ValueError(
            f"`images` must be finite, but got NaN or infinity in {broken} of {len(images)}. "
            "The weights have diverged; train with a lower learning rate."
        )
    return images


def _encode(
    pipeline: StableDiffusionPipeline, models: DiffusionModels, prompts: Sequence[str], batch_size: int
) -> Embeddings:
    """Each distinct prompt's embedding, [tokens, width]."""
    distinct = list(dict.fromkeys(prompts))
    embeddings: Embeddings = {}
    for start in range(0, len(distinct), batch_size):
        texts = distinct[start : start + batch_size]
        spelled = [models.spelled(text) for text in texts]
        encoded, _ = pipeline.encode_prompt(
            spelled, pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        embeddings.update(zip(texts, encoded, strict=True))
    return embeddings


def _inputs(embeddings: Embeddings, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """One batch's embeddings, those without a prompt where guidance needs them, and noise generators."""
    inputs: dict[str, Any] = {
        "prompt_embeds": torch.stack([embeddings[prompt] for prompt in prompts]),
        "generator": [torch.Generator().manual_seed(int(seed)) for seed in seeds],
    }
    if "" in embeddings:
        inputs["negative_prompt_embeds"] = embeddings[""].expand_as(inputs["prompt_embeds"])
    return inputs
