"""Times the draws of a training step by image beside one generator for the whole batch: `python -m benchmarks.draws`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.strategy_step import Setting
from trainables.base_models.models import load_base
from trainables.draws import EpochDraws

LATENTS = {"64 px, mini": (4, 16, 16), "512 px, SD 1.5": (4, 64, 64)}
NUM_IMAGES = 10_000


def by_batch(batch_size: int, shape: Sequence[int]) -> Callable[[], None]:
    """The least that can be: all images of a batch from one generator."""
    generator = torch.Generator()

    def draw() -> None:
        for _ in range(2):
            torch.randn(batch_size, *shape, generator=generator)
        torch.randint(0, 1000, (batch_size,), generator=generator)
        torch.rand(batch_size, generator=generator)

    return draw


def by_image(batch_size: int, shape: Sequence[int]) -> Callable[[], None]:
    """The engine's."""
    draws = EpochDraws(0, 0, NUM_IMAGES)
    rows = np.random.default_rng(0).permutation(NUM_IMAGES)[:batch_size]

    def draw() -> None:
        draws.noises(rows, shape)
        draws.timesteps(rows, 1000)
        draws.chances(rows)

    return draw


def in_turns_ms(draws: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Median milliseconds of this thread's own time, so that other processes do not count."""
    durations: list[list[float]] = [[] for _ in draws]
    for _ in range(rounds):
        for times, draw in zip(durations, draws, strict=True):
            started_s = time.thread_time()
            draw()
            times.append(1000 * (time.thread_time() - started_s))
    return [statistics.median(times) for times in durations]


def step_ms(batch_size: int, strategy: str) -> float:
    """Processor time of one training step of the mini base, draws included."""
    setting = Setting(base="mini", batch_size=batch_size, steps=5, rounds=1)
    tuning = setting.training(load_base("mini"), strategy)
    tuning._epoch(0)
    started_s = time.process_time()
    tuning._epoch(1)
    return 1000 * (time.process_time() - started_s) / setting.steps


def main(
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="In which both take turns.")] = 100,
) -> None:
    """Time the draws of a step by image and by batch, and a step of the mini base.

    Example: OMP_NUM_THREADS=1 python -m benchmarks.draws
    """
    title = f"batch {batch_size}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table("latents", "by image, ms", "by batch, ms", title=title, title_justify="left")
    for name, shape in LATENTS.items():
        figures = in_turns_ms([by_image(batch_size, shape), by_batch(batch_size, shape)], rounds)
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    table.add_row("a step of lora, 64 px, mini", f"{step_ms(batch_size, 'lora'):.0f}", "")
    started_s = time.thread_time()
    EpochDraws(0, 0, 223_414)
    table.add_row("an epoch's table, 223,414 images", f"{1000 * (time.thread_time() - started_s):.0f}", "")
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
