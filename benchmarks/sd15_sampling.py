"""Times sampling at Stable Diffusion 1.5's size beside diffusers' own pipeline: `python -m benchmarks.sd15_sampling`.

Random weights of the full-size classes, one process, candidates in turns, the device's own events, compile time apart.
It needs what `benchmarks.sd15_step` needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd15 import (
    Candidate,
    Rows,
    base_to_time,
    freed_afterwards,
    listed,
    measure,
    the_device,
)
from trainables.base_models.models import DiffusionModels
from trainables.compiling import compile_blocks
from trainables.numerics import FULL, Numerics, half_of_device, numerics_on
from trainables.sampling import generate_batches, pipeline_of, to_uint8

VARIANTS = ("fp32", "tf32", "bf16", "fp16", "compiled")
RIVALS = ("diffusers_fp16", "diffusers_compiled")
"""diffusers' pipeline with our solver, in fp16 as its documentation runs it; compiled: channels last, the whole U-Net."""
Films = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all candidates share."""

    films: int
    steps: int
    guidance: float
    backend: str
    toy: bool = False


@contextmanager
def tensor_floats(allowed: bool) -> Iterator[None]:
    """Let products of float32 be computed in TF32, or not at all."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def numerics_of(variant: str) -> Numerics:
    """What a variant samples in."""
    if variant in ("fp32", "tf32"):
        return FULL
    half = half_of_device() if torch.cuda.is_available() else "bf16"
    return numerics_on(the_device(), half if variant == "compiled" else variant)


def prompts_of(count: int) -> list[str]:
    """Distinct ones, as long as captions are."""
    return [f"Chest X-ray of a subject with finding {number}" for number in range(count)]


def ours(models: DiffusionModels, setting: Setting, batch: int, *, tf32: bool) -> Films:
    """One batch by the engine, as bytes in the host's memory."""
    options: dict[str, Any] = {"num_steps": setting.steps, "guidance_scale": setting.guidance, "batch_size": batch}
    with tensor_floats(tf32):
        (images,) = generate_batches(models, prompts_of(batch), range(batch), **options)
        films: Films = to_uint8(images).cpu().numpy()
    return films


def theirs(pipeline: StableDiffusionPipeline, setting: Setting, batch: int) -> Films:
    """One batch by diffusers' pipeline, as its users have it."""
    images = pipeline(
        prompts_of(batch),
        num_inference_steps=setting.steps,
        guidance_scale=setting.guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in range(batch)],
        output_type="np",
    ).images
    return np.asarray((images * 255).round(), np.uint8)


def turn_of(base: DiffusionModels, name: str, setting: Setting) -> Callable[[int], Films]:
    """What a candidate does with a batch."""
    if name in RIVALS:
        models = base.fresh()
        for part in models.components().values():
            part.to(torch.float16)
        if name == "diffusers_compiled":
            models.unet.to(memory_format=torch.channels_last)
            models.unet.compile(backend=setting.backend, fullgraph=True)
        return partial(theirs, pipeline_of(models), setting)
    models = base.fresh().computing_in(numerics_of(name))
    if name == "compiled":
        compile_blocks(models.unet, backend=setting.backend)
    return lambda batch: ours(models, setting, batch, tf32=name != "fp32")


def drift(reference: Films, films: Films) -> Mapping[str, float]:
    """Grey levels between films and float32's of the same noise, in the mean; and features, relative to float32's."""
    count = min(len(reference), len(films))
    reference, compared = reference[:count], films[:count]
    levels = np.abs(compared.astype(np.float32) - reference).mean()
    expected, came = features(reference), features(compared)
    relative = (came - expected).norm(dim=1) / expected.norm(dim=1)
    return {"grey levels": float(levels), "features": float(relative.mean())}


@torch.inference_mode()
def features(films: Films) -> Tensor:
    """Of a small network of fixed random weights, float32[n, 64]: they tell pictures apart, and need no library."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 7, 4), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU()
        )
    grey = torch.from_numpy(films).float().mean(dim=-1)[:, None] / 255
    extracted: Tensor = network(grey).mean(dim=(2, 3))
    return extracted


@torch.inference_mode()
def flops_of_a_film(base: DiffusionModels, setting: Setting) -> float:
    """Products and attention of all guided steps, and of the decoder."""
    config: Any = base.unet.config
    latents = torch.zeros(1, 4, config.sample_size, config.sample_size, device=base.unet.device)
    states = torch.zeros(1, 77, config.cross_attention_dim, device=base.unet.device)
    with FlopCounterMode(display=False) as step:
        base.unet(latents, 1, states)
    with FlopCounterMode(display=False) as decoder:
        base.vae.decode(latents)
    sides = 2 if setting.guidance > 1 else 1
    return float(sides * setting.steps * step.get_total_flops() + decoder.get_total_flops())


def run(
    setting: Setting, rows: Rows, *, batches: list[int], variants: list[str], rivals: list[str], budget_s: float
) -> None:
    """Measure every candidate at each batch size; float32 and TF32, which take longest, at the first alone."""
    deadline_s, base = time.monotonic() + budget_s, base_to_time(setting.toy)
    flops = flops_of_a_film(base, setting)
    reference = ours(base, setting, batches[0], tf32=False)
    turns = {name: turn_of(base, name, setting) for name in [*variants, *rivals]}
    for place, batch in enumerate(batches):
        with freed_afterwards():
            candidates = [
                Candidate(
                    name=name,
                    batch=batch,
                    turn=partial(turn, batch),
                    images=batch,
                    flops=batch * flops,
                    drift=partial(drift, reference),
                )
                for name, turn in turns.items()
                if place == 0 or name not in ("fp32", "tf32")
            ]
            measure(candidates, rows, rounds=max(1, setting.films // batch), deadline_s=deadline_s)


def main(
    films: Annotated[int, typer.Option(min=1, help="Of each candidate at each batch size, in whole batches.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Of the solver.")] = 25,
    guidance: Annotated[float, typer.Option(help="1 or less: none.")] = 7.5,
    batch: Annotated[str, typer.Option(help="Films at a time, separated by commas.")] = "8,16,32",
    variants: Annotated[str, typer.Option(help=f"Of {', '.join(VARIANTS)}.")] = "fp32,tf32,bf16,compiled",
    rivals: Annotated[str, typer.Option(help="Of diffusers, or none.")] = ",".join(RIVALS),
    budget_s: Annotated[float, typer.Option(help="No turn begins later.")] = 150.0,
    json: Annotated[Path | None, typer.Option(help="Where the rows go.", metavar="FILE")] = None,
    backend: Annotated[str, typer.Option(help="What compiles.")] = "inductor",
    toy: Annotated[bool, typer.Option("--toy", help="Of the mini base, to try it on a CPU.")] = False,
) -> None:
    """Time sampling at Stable Diffusion 1.5's size, ours and diffusers' pipeline, in turns.

    Example: python -m benchmarks.sd15_sampling --batch 16 --variants bf16,compiled --json sampling.json
    """
    setting = Setting(
        films=films,
        steps=steps,
        guidance=guidance,
        backend=backend,
        toy=toy,
    )
    chosen: dict[str, Any] = {
        "batches": [int(size) for size in batch.split(",")],
        "variants": listed(variants, VARIANTS, "--variants"),
        "rivals": listed(rivals, RIVALS, "--rivals"),
    }
    rows = Rows(json, {**vars(setting), **chosen})
    run(setting, rows, **chosen, budget_s=budget_s)
    rows.show(f"Sampling, {steps} steps at guidance {guidance:g}")


if __name__ == "__main__":
    typer.run(main)
