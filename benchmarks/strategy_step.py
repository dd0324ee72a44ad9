"""Times a training step of every strategy beside one of full U-Net training: `python -m benchmarks.strategy_step`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from trainables.accelerators import new_accelerator
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.sd15 import sd15_on
from trainables.batches import BatchPlan, Share
from trainables.draws import EpochDraws
from trainables.feeding import HostBatch
from trainables.settings import TrainingConfig
from trainables.strategies import COMBINATIONS, STRATEGIES, Strategy, make_strategy
from trainables.strategies.low_rank import ATTENTION
from trainables.training import FineTuning

REFERENCE = "unet"
PEFT = ("peft lora", "peft dora")
PAIRS = (("dora", "lora"), ("peft dora", "peft lora"), ("lora", "peft lora"), ("dora", "peft dora"))
"""Timed against each other as well, in turns."""


@dataclass(frozen=True, kw_only=True)
class PeftLowRank(Strategy):
    """PEFT's own LoRA or DoRA on the U-Net's attention projections: the second implementation."""

    dora: bool

    @property
    def name(self) -> str:
        """As in the table of results."""
        return PEFT[self.dora]

    def inject(self, models: DiffusionModels) -> None:
        """Let PEFT wrap the layers."""
        targets = [name.removeprefix(".") for name in ATTENTION if name.startswith(".to_")]
        config = LoraConfig(r=8, lora_alpha=16, target_modules=targets, use_dora=self.dora)
        inject_adapter_in_model(config, models.unet)


@dataclass(frozen=True)
class RandomBatches:
    """What a strategy trains on, drawn at random: latents and prompt states where their encoders are frozen."""

    models: DiffusionModels
    trains: Sequence[str]
    generator: torch.Generator = field(default_factory=torch.Generator)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image's latents."""
        config: Any = self.models.unet.config
        return 4, config.sample_size, config.sample_size

    def batches(
        self, shares: Iterable[Share], draws: EpochDraws, device: torch.device
    ) -> Iterator[tuple[Share, HostBatch]]:
        """Each share with its batch."""
        return ((share, self.host_batch(share.indices, draws)) for share in shares)

    def device_batch(self, host: HostBatch, device: torch.device) -> dict[str, Tensor]:
        """The batch where the loss is computed."""
        return {name: tensor.to(device) for name, tensor in host.items()}

    def host_batch(self, rows: NDArray[Any], draws: EpochDraws) -> HostBatch:
        """A batch in the form that the loss takes."""
        config: Any = self.models.unet.config
        count, side, latents = len(rows), self.models.resolution_px, self.latent_shape
        noise, latent_noise = draws.noises(rows, latents)
        batch = {"noise": noise, "timesteps": draws.timesteps(rows, 1000)}
        if "vae" in self.trains:
            batch["pixels"] = torch.rand(count, 3, side, side, generator=self.generator) * 2 - 1
            batch["latent_noise"] = latent_noise
        else:
            batch["latents"] = torch.randn(count, *latents, generator=self.generator)
        if "text_encoder" in self.trains:
            batch["token_ids"] = torch.randint(3, 500, (count, 77), generator=self.generator)
        else:
            batch["prompt_states"] = torch.randn(count, 77, config.cross_attention_dim, generator=self.generator)
        return batch


def strategy_of(name: str, base: DiffusionModels) -> Strategy:
    """A strategy with its defaults; the encoder that is swapped in is a small random one of the U-Net's width."""
    if name in PEFT:
        return PeftLowRank(dora=name == PEFT[1])
    if name != "text_encoder_swap":
        return make_strategy(name, {})
    folder = Path(tempfile.gettempdir()) / f"strategy-step-bert-{base.unet.config.cross_attention_dim}"
    if not folder.is_dir():
        write_bert_layout(folder, hidden_size=base.unet.config.cross_attention_dim)
    return make_strategy(name, {"encoder": str(folder)})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all strategies are timed on."""

    base: str
    batch_size: int
    steps: int
    rounds: int

    def models(self) -> DiffusionModels:
        """The base, on the accelerator where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return sd15_on(device) if self.base == "sd15" else load_base(self.base).to(device)

    def training(self, base: DiffusionModels, name: str) -> FineTuning:
        """The engine's own training by a strategy, an epoch of which is `steps` steps."""
        strategy = strategy_of(name, base)
        accelerator = new_accelerator("auto")
        models = base.fresh()
        for part in {"vae", "text_encoder"} - set(strategy.trains):
            models.component(part).to("meta")
        strategy.attach(models)
        plan = BatchPlan(num_images=self.batch_size * self.steps, batch_size=self.batch_size)
        return FineTuning(
            models,
            strategy,
            feeder=RandomBatches(models, strategy.trains),  # type: ignore[arg-type]
            plan=plan,
            lr=1e-6,
            config=TrainingConfig(num_epochs=self.rounds + 1),
            accelerator=accelerator,
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A strategy's figures."""

    name: str
    parameters: int
    step_ms: float
    images_per_s: float
    ratio: float
    peak_gib: float


def in_turns(first: FineTuning, second: FineTuning, rounds: int) -> tuple[float, float, float]:
    """Seconds of an epoch of each, medians over rounds in which they take turns, and the median ratio first / second."""
    for tuning in (first, second):
        tuning._epoch(0)
    pairs = [(first._epoch(number).epoch_s, second._epoch(number).epoch_s) for number in range(1, rounds + 1)]
    ratios = [first_s / other for first_s, other in pairs]
    return (
        statistics.median(first_s for first_s, _ in pairs),
        statistics.median(two for _, two in pairs),
        statistics.median(ratios),
    )


def measure(setting: Setting, base: DiffusionModels, name: str) -> Row:
    """One strategy beside the reference."""
    tuning = setting.training(base, name)
    parameters = tuning.strategy.num_parameters(tuning.models)
    reference = setting.training(base, REFERENCE)
    epoch_s, _, ratio = in_turns(tuning, reference, setting.rounds)
    del tuning, reference
    return Row(
        name=name,
        parameters=parameters,
        step_ms=1000 * epoch_s / setting.steps,
        ratio=ratio,
        images_per_s=setting.batch_size * setting.steps / epoch_s,
        peak_gib=peak_memory_gib(setting, name),
    )


def peak_memory_gib(setting: Setting, name: str) -> float:
    """What two steps on a copy of the base need beside it, in a process of its own: resident memory, or the accelerator's."""
    task = json.dumps({"base": setting.base, "batch_size": setting.batch_size, "name": name})
    command = [sys.executable, "-m", "benchmarks.strategy_step", "--memory-of", task]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def print_memory(task: dict[str, Any]) -> None:
    """What `peak_memory_gib` reads."""
    setting = Setting(base=task["base"], batch_size=task["batch_size"], steps=2, rounds=1)
    base = setting.models()
    before = torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
    report = setting.training(base, task["name"])._epoch(0)
    print(report.peak_memory_gib - before / 2**30)


def names() -> Iterator[str]:
    """Every strategy, then PEFT's."""
    yield from (*STRATEGIES, *COMBINATIONS)
    yield from PEFT


def as_table(rows: Sequence[Row], title: str) -> Table:
    """The rows for the terminal."""
    table = Table(title=title, title_justify="left")
    for name in ("strategy", "parameters", "step, ms", "images / s", "step / U-Net's", "memory, GiB"):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for row in rows:
        figures = (f"{row.step_ms:.1f}", f"{row.images_per_s:.1f}", f"{row.ratio:.2f}", f"{row.peak_gib:.2f}")
        table.add_row(row.name, f"{row.parameters:,}", *figures)
    return table


def main(
    base: Annotated[str, typer.Option(help="mini, or sd15: random weights at 512 px.")] = "mini",
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="In which a strategy and the reference take turns.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Of these strategies, instead of all.")] = None,
    memory_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Time every strategy's training step, with its memory, beside full U-Net training; and DoRA beside LoRA, ours and PEFT's.

    Example: python -m benchmarks.strategy_step --base mini --only lora --only dora
    """
    if memory_of is not None:
        print_memory(json.loads(memory_of))
        return
    setting = Setting(base=base, batch_size=batch_size, steps=steps, rounds=rounds)
    console, models = Console(width=120), setting.models()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    rows = [measure(setting, models, name) for name in track(only or list(names()), console=Console(stderr=True))]
    console.print(as_table(rows, f"{base}, batch {batch_size}, {device}, torch {torch.__version__}"))
    for first, second in (pair for pair in PAIRS if only is None or set(pair) <= {*only, *PEFT}):
        tunings = [setting.training(models, name) for name in (first, second)]
        console.print(f"{first} / {second}: {in_turns(tunings[0], tunings[1], rounds)[2]:.2f}")


if __name__ == "__main__":
    typer.run(main)
