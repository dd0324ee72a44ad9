"""Counts a training step's kernels and traffic at Stable Diffusion 1.5's size: `python -m benchmarks.sd15_counts`.

The engine's own step, forward and backward, runs on tensors without values: no weights, no memory, no GPU. Operators are
those of the CPU's dispatch: on a GPU autocast casts the norms' inputs too, and kernels that are compiled do several at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.strategy_step import RandomBatches, strategy_of
from benchmarks.traffic import Traffic, traffic_of
from trainables.accelerators import new_accelerator
from trainables.base_models.models import DiffusionModels
from trainables.base_models.sd15 import NOISE_SCHEDULE
from trainables.base_models.shapes import base_on_meta
from trainables.batches import BatchPlan
from trainables.datasets.sharded import Layout, ShardedArray, get_or_fill
from trainables.draws import EpochDraws
from trainables.feeding import BatchFeeder, moments_shape
from trainables.half import halve_frozen
from trainables.settings import TrainingConfig
from trainables.strategies.base import Strategy
from trainables.training import FineTuning

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a step of a strategy counts to.

    Attributes:
        traffic: of forward and backward pass.
        sent_bytes: from the host to the device, where moments and prompt states are not kept there.
        sent_bytes_kept: where they are.
    """

    strategy: str
    precision: str
    traffic: Traffic
    sent_bytes: int
    sent_bytes_kept: int


@dataclass(frozen=True)
class BlankFilms:
    """As many films as a batch has, black, each with a caption of its own."""

    count: int
    resolution_px: int

    @property
    def prompts(self) -> list[str]:
        """The captions."""
        return [f"a chest film {number}" for number in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8[n, H, W]."""
        return np.zeros((len(rows), self.resolution_px, self.resolution_px), np.uint8)


class UnencodedFeeder(BatchFeeder):
    """The engine's feeder, whose caches are zeros: what it sends depends on shapes alone."""

    def _cached_moments(self) -> ShardedArray | None:
        return None if "vae" in self.trained else self._zeros("moments", moments_shape(self.models, self._films))

    def _cached_states(self, prompts: Any) -> ShardedArray | None:
        width: int = self.models.text_encoder.config.hidden_size
        return None if "text_encoder" in self.trained else self._zeros("states", (*self.token_ids.shape, width))

    def _zeros(self, name: str, shape: tuple[int, ...]) -> ShardedArray:
        layout = Layout(shape=shape, dtype=np.float32, step=8)
        assert self.cache_folder is not None
        return get_or_fill(
            self.cache_folder,
            name,
            "zeros",
            layout,
            lambda start, stop: np.zeros((stop - start, *shape[1:]), np.float32),
        )


def training_of(models: DiffusionModels, strategy: Strategy, *, batch: int, precision: str) -> FineTuning:
    """The engine's training of attached models on the meta device, which get tensors of the mode that is on."""
    for name, part in models.components().items():
        part.to_empty(device="cpu").train(name in strategy.trains)
    accelerator = new_accelerator(precision)
    accelerator.device_placement = False  # what has no values cannot be moved
    return FineTuning(
        models,
        strategy,
        feeder=RandomBatches(models, strategy.trains),  # type: ignore[arg-type]
        plan=BatchPlan(num_images=batch, batch_size=batch),
        lr=1e-6,
        config=TrainingConfig(num_epochs=1),
        accelerator=accelerator,
    )


def base_of(toy: bool) -> DiffusionModels:
    """SD 1.5 without weights; as a toy the mini base."""
    return replace(base_on_meta("mini" if toy else "sd15"), scheduler_config=NOISE_SCHEDULE)


def step_traffic(name: str, *, batch: int, precision: str, toy: bool) -> Traffic:
    """What forward and backward pass of a step count to."""
    models = base_of(toy)
    strategy = strategy_of(name, models)
    strategy.attach(models)
    halve_frozen(models, precision)  # on the meta device, where tensors may still change their type
    with FakeTensorMode(allow_non_fake_inputs=True):
        tuning = training_of(models, strategy, batch=batch, precision=precision)
        fed = tuning.feeder.host_batch(np.arange(batch), EpochDraws(0, 0, batch))
        return traffic_of(lambda: tuning.accelerator.backward(tuning._loss(fed)))


def sent_bytes(name: str, *, batch: int, precision: str, toy: bool) -> tuple[int, int]:
    """What the engine's feeder sends for a step: with everything sent, and with what fits kept on the device."""
    base = base_of(toy)
    with TemporaryDirectory() as folder:
        feeder = UnencodedFeeder(
            models=base,
            data=BlankFilms(batch, base.resolution_px),  # type: ignore[arg-type]
            data_key="blank",
            trained=strategy_of(name, base).trains,
            cache_folder=Path(folder),
            caption_dropout=0.1,
            mixed_precision=precision,
        )
        draws, rows = EpochDraws(0, 0, batch), np.arange(batch)
        sent = bytes_of(feeder.host_batch(rows, draws))
        feeder.keep_on(torch.device("cpu"), room_bytes=2**40)
        return sent, bytes_of(feeder.host_batch(rows, draws))


def bytes_of(tensors: dict[str, Tensor]) -> int:
    """Of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors.values())


def rows_of(strategies: list[str], precisions: list[str], *, batch: int, toy: bool) -> Iterator[Row]:
    """A row for each strategy and precision."""
    for name in strategies:
        for precision in precisions:
            sent, kept = sent_bytes(name, batch=batch, precision=precision, toy=toy)
            yield Row(
                strategy=name,
                precision=precision,
                traffic=step_traffic(name, batch=batch, precision=precision, toy=toy),
                sent_bytes=sent,
                sent_bytes_kept=kept,
            )


def main(
    strategies: Annotated[str, typer.Option(help="Names, separated by commas.")] = "unet,lora,dora",
    precisions: Annotated[str, typer.Option(help="Of no, bf16 and fp16.")] = "no,bf16",
    batch: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 32,
    toy: Annotated[bool, typer.Option("--toy", help="Of the mini base.")] = False,
) -> None:
    """Count kernels and traffic of a training step, and what is sent to the device for it.

    Example: python -m benchmarks.sd15_counts --strategies lora --precisions bf16
    """
    table = Table(title=f"Batch {batch}, torch {torch.__version__}", title_justify="left")
    for heading in ("strategy", "precision", "kernels", "of products", "GB", "of others, GB", "sent, MB", "kept, MB"):
        table.add_column(heading, justify="left" if heading in ("strategy", "precision") else "right")
    for row in rows_of(strategies.split(","), precisions.split(","), batch=batch, toy=toy):
        products, others = row.traffic.products, row.traffic.others
        table.add_row(
            row.strategy,
            row.precision,
            f"{products.kernels + others.kernels:,}",
            f"{products.kernels:,}",
            f"{(products.num_bytes + others.num_bytes) / GB:.1f}",
            f"{others.num_bytes / GB:.1f}",
            f"{row.sent_bytes / 1e6:.2f}",
            f"{row.sent_bytes_kept / 1e6:.2f}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    typer.run(main)
