"""Times training steps at Stable Diffusion 1.5's size beside diffusers' own: `python -m benchmarks.sd15_step`.

Random weights of the full-size classes, one process, candidates in turns, the device's own events, compile time apart.
It needs torch, diffusers, transformers, accelerate, peft, pydantic, pyarrow, numpy, psutil, filelock, safetensors, typer and
rich; neither Ray, MLflow, Optuna nor torchxrayvision.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd15 import (
    Candidate,
    Rows,
    base_to_time,
    freed_afterwards,
    listed,
    measure,
    the_device,
    uncompiled,
)
from benchmarks.strategy_step import RandomBatches
from trainables.accelerators import choose_precision, new_accelerator
from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan, Share
from trainables.compiling import compile_blocks
from trainables.draws import EpochDraws
from trainables.feeding import HostBatch
from trainables.numerics import HALF
from trainables.settings import TrainingConfig
from trainables.strategies import STRATEGIES, make_strategy
from trainables.training import FineTuning

VARIANTS = ("eager", "channels_last", "compiled")
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
RIVALS = {
    "diffusers_lora": {"dora": False, "cached": False},
    "diffusers_lora_cached": {"dora": False, "cached": True},
    "peft_dora": {"dora": True, "cached": True},
}
"""The step of diffusers' `train_text_to_image_lora.py`, with encoders in the step or their outputs cached; the latter
with PEFT's DoRA."""
MANY_STEPS = 1000
REFERENCE_IMAGES = 4
"""At a time in float32, where a step of full training would need twice the memory."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all candidates share."""

    batch: int
    rounds: int
    precision: str
    backend: str
    toy: bool = False


class Ours:
    """The engine's own training step by a strategy, on the same batch again and again."""

    def __init__(
        self, base: DiffusionModels, name: str, setting: Setting, *, channels_last: bool, precision: str
    ) -> None:
        models, strategy = base.fresh(), make_strategy(name, {})
        for part in {"vae", "text_encoder"} - set(strategy.trains):
            models.component(part).to("meta")
        torch.manual_seed(0)
        strategy.attach(models)
        if channels_last:
            models.unet.to(memory_format=torch.channels_last)
        feeder = RandomBatches(models, strategy.trains, torch.Generator().manual_seed(0))
        plan = BatchPlan(num_images=setting.batch * MANY_STEPS, batch_size=setting.batch)
        self.tuning = FineTuning(
            models,
            strategy,
            feeder=feeder,  # type: ignore[arg-type]
            plan=plan,
            lr=1e-6,
            config=TrainingConfig(num_epochs=1, micro_batch=setting.batch if precision != "no" else REFERENCE_IMAGES),
            accelerator=new_accelerator(precision),
        )
        for part in strategy.trains:
            models.component(part).train()
        rows = np.arange(setting.batch)
        self.share, self.host = Share(rows, 1.0), feeder.host_batch(rows, EpochDraws(0, 0, plan.num_images))
        self.unet, self._backend, self._is_compiled = models.unet, setting.backend, False

    def step(self) -> Tensor:
        """One optimiser step, not compiled; the loss before it."""
        with uncompiled(self.unet):
            return self.tuning._train_step(self.share, self.host)

    def compiled_step(self) -> Tensor:
        """The same with the U-Net's blocks compiled."""
        if not self._is_compiled:
            compile_blocks(self.unet, backend=self._backend)
            self._is_compiled = True
        return self.tuning._train_step(self.share, self.host)

    def flops_of_a_step(self) -> float:
        """Of products and attention, counted on one image."""
        single: HostBatch = {name: tensor[:1] for name, tensor in self.host.items()}
        with FlopCounterMode(display=False) as counter:
            self.tuning._train_step(Share(self.share.indices[:1], 1.0), single)
        return float(counter.get_total_flops() * len(self.share.indices))


class Theirs:
    """The step of diffusers' own LoRA training script, by the same calls in the same order."""

    def __init__(self, base: DiffusionModels, setting: Setting, *, dora: bool, cached: bool) -> None:
        device, self.dtype = the_device(), HALF.get(setting.precision, torch.float32)
        self.vae, self.text_encoder = (copy.deepcopy(part).to(self.dtype) for part in (base.vae, base.text_encoder))
        unet = copy.deepcopy(base.unet).requires_grad_(False).to(self.dtype)
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        unet.add_adapter(
            LoraConfig(r=8, lora_alpha=16, init_lora_weights="gaussian", target_modules=targets, use_dora=dora)
        )
        cast_training_params(unet, dtype=torch.float32)  # which the script does under fp16 alone; ours are too
        self.parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        self.accelerator: Accelerator = new_accelerator(setting.precision)
        optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)
        self.unet, self.optimizer = self.accelerator.prepare(unet.train(), optimizer)
        self.noise_scheduler = DDPMScheduler.from_config(dict(base.scheduler_config))
        side = base.resolution_px
        generator = torch.Generator().manual_seed(0)
        self.pixels = (torch.rand(setting.batch, 3, side, side, generator=generator) * 2 - 1).to(device)
        self.token_ids = torch.randint(3, 500, (setting.batch, 77), generator=generator).to(device)
        self.kept = self._encoded() if cached else None

    @torch.no_grad()
    def _encoded(self) -> tuple[Tensor, Tensor]:
        parts = [self.vae.encode(part.to(self.dtype)).latent_dist.sample() for part in torch.split(self.pixels, 8)]
        return torch.cat(parts) * self.vae.config.scaling_factor, self.text_encoder(self.token_ids)[0]

    @torch.no_grad()
    def _encoded_at_once(self) -> tuple[Tensor, Tensor]:
        latents = self.vae.encode(self.pixels.to(self.dtype)).latent_dist.sample()
        return latents * self.vae.config.scaling_factor, self.text_encoder(self.token_ids)[0]

    def step(self) -> Tensor:
        """One optimiser step."""
        latents, states = self.kept or self._encoded_at_once()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(latents),), device=latents.device)
        noisy = self.noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, states, return_dict=False)[0]
        loss = functional.mse_loss(predicted.float(), noise.float(), reduction="mean")
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def within(kernel: str, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step with attention by one kernel; `auto` leaves the choice to torch."""

    def turn() -> Tensor:
        with nullcontext() if kernel == "auto" else sdpa_kernel(KERNELS[kernel]):
            return step()

    return turn


def candidates_of(
    base: DiffusionModels, name: str, setting: Setting, *, variants: list[str], kernels: list[str]
) -> Iterator[Candidate]:
    """A strategy's variants, and of the first one those with other attention kernels."""
    with freed_afterwards():
        full, flops = reference(base, name, setting)
    made: dict[bool, Ours] = {}
    for place, variant in enumerate(variants):
        is_last = variant != "eager"
        is_new = is_last not in made
        ours = made[is_last] = made.get(is_last) or one_of(base, name, setting, is_last)
        step = ours.compiled_step if variant == "compiled" else ours.step
        for kernel in ["auto", *(kernels if place == 0 else ())]:
            label = f"{name} {variant}" + ("" if kernel == "auto" else f" {kernel}")
            # Only the first step of a training has the weights that the reference had.
            drift = partial(loss_drift, full) if is_new and kernel == "auto" else nothing
            yield Candidate(
                name=label,
                batch=setting.batch,
                turn=within(kernel, step),
                images=setting.batch,
                flops=flops,
                drift=drift,
            )


def one_of(base: DiffusionModels, name: str, setting: Setting, channels_last: bool) -> Ours:
    """A training in the precision of the device."""
    return Ours(base, name, setting, channels_last=channels_last, precision=setting.precision)


def reference(base: DiffusionModels, name: str, setting: Setting) -> tuple[float, float]:
    """The first step's loss in float32, and the operations of a step."""
    full = Ours(base, name, setting, channels_last=False, precision="no")
    return float(full.step()), full.flops_of_a_step()


def loss_drift(full: float, loss: Tensor) -> Mapping[str, float]:
    """How far a loss is from float32's, relative to that."""
    return {"loss": abs(float(loss) - full) / abs(full)}


def nothing(_: Any) -> Mapping[str, float]:
    """Of what is not compared."""
    return {}


def run(
    setting: Setting,
    rows: Rows,
    *,
    strategies: list[str],
    variants: list[str],
    kernels: list[str],
    rivals: list[str],
    budget_s: float,
) -> None:
    """Measure what is asked for, a strategy after the other, and the rivals beside those that they rival."""
    deadline_s, base = time.monotonic() + budget_s, base_to_time(setting.toy)
    for name in strategies:
        with freed_afterwards():
            candidates = list(
                candidates_of(base, name, setting, variants=variants, kernels=kernels if name == "lora" else [])
            )
            measure(candidates, rows, rounds=setting.rounds, deadline_s=deadline_s)
            del candidates
    with freed_afterwards():
        theirs = [
            Candidate(
                name=name,
                batch=setting.batch,
                turn=Theirs(base, setting, **RIVALS[name]).step,
                images=setting.batch,
            )
            for name in rivals
        ]
        measure(theirs, rows, rounds=setting.rounds, deadline_s=deadline_s)


def main(
    strategies: Annotated[str, typer.Option(help="Names, separated by commas.")] = "unet,lora,dora",
    batch: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 32,
    variants: Annotated[str, typer.Option(help="Of eager, channels_last, compiled.")] = "eager,channels_last,compiled",
    sdpa: Annotated[str, typer.Option(help="Attention kernels for LoRA, or none.")] = "flash,cudnn,efficient",
    rivals: Annotated[str, typer.Option(help="Of diffusers and PEFT, or none.")] = ",".join(RIVALS),
    budget_s: Annotated[float, typer.Option(help="No turn begins later.")] = 240.0,
    json: Annotated[Path | None, typer.Option(help="Where the rows go.", metavar="FILE")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 5,
    backend: Annotated[str, typer.Option(help="What compiles.")] = "inductor",
    toy: Annotated[bool, typer.Option("--toy", help="Of the mini base, to try it on a CPU.")] = False,
) -> None:
    """Time training steps of Stable Diffusion 1.5's size, ours and diffusers', in turns.

    Example: python -m benchmarks.sd15_step --strategies lora --batch 32 --json step.json
    """
    setting = Setting(
        batch=batch,
        rounds=rounds,
        precision=choose_precision("auto"),
        backend=backend,
        toy=toy,
    )
    chosen: dict[str, Any] = {
        "strategies": listed(strategies, list(STRATEGIES), "--strategies"),
        "variants": listed(variants, VARIANTS, "--variants"),
        "kernels": listed(sdpa, list(KERNELS), "--sdpa"),
        "rivals": listed(rivals, list(RIVALS), "--rivals"),
    }
    rows = Rows(json, {**vars(setting), **chosen})
    run(setting, rows, **chosen, budget_s=budget_s)
    rows.show(f"Training steps in {setting.precision}")


if __name__ == "__main__":
    typer.run(main)
