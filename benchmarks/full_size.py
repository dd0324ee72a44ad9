"""What Stable Diffusion 1.5 at full size takes from films to scores, without its weights: `python -m benchmarks.full_size`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.scale import CONDITIONS, ManyFilms
from benchmarks.watching import watched
from trainables.base_models.sd15 import write_sd15_layout
from trainables.datasets.writing import write_dataset

LATENT_SIDE = 64
SHOWN_GIB = 0.5
"""Processes with less than this are not shown."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a process held at most.

    Attributes:
        process: its title.
        resident_gib: all of it, mapped files included.
        anonymous_gib: without these.
        seconds: of the whole sweep.
    """

    process: str
    resident_gib: float
    anonymous_gib: float
    seconds: float


def main(
    films: Annotated[int, typer.Option(min=2, help="That the trial trains on, once.")] = 12,
    generated: Annotated[int, typer.Option(min=2, help="Of each of two findings, in each of two evaluations.")] = 2,
    num_steps: Annotated[int, typer.Option(min=1, help="Of the sampling.")] = 2,
    divisor: Annotated[int, typer.Option(help="Of the widths: 1 is the full size; 8, with --side 8, a trial run.")] = 1,
    side: Annotated[int, typer.Option(help="Of the latents; films are 8 times as large.")] = LATENT_SIDE,
    folder: Annotated[Path | None, typer.Option(help="Where all goes for a while; 5 GB at full size.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the figures go.")] = None,
) -> None:
    """Train one LoRA trial on a base of random weights, score it and the base; say what each process held at most.

    Example: python -m benchmarks.full_size --json full_size.json
    """
    with TemporaryDirectory(dir=folder) as place:
        write_sd15_layout(Path(place) / "base", width_divisor=divisor, latent_side=side)
        counts = {"train": films, "validation": 2 * generated, "test": 2}
        write_dataset(ManyFilms(counts, 8 * side), Path(place) / "films")
        rows = list(run(Path(place), generated=generated, num_steps=num_steps))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    Console().print(table_of(rows))


def run(place: Path, *, generated: int, num_steps: int) -> Iterator[Held]:
    """A sweep of one trial in processes of its own.

    Args:
        place: holds `base` and `films`.
        generated: films of each finding.
        num_steps: of the sampling.
    """
    settings = {
        "base": str(place / "base"),
        "data.source": "prepared",
        "data.path": str(place / "films"),
        "data.conditions": json.dumps(CONDITIONS),
        "search.space": "core",
        "search.strategies": "[lora]",
        "search.hyperparameters.lora.batch_size": "4",
        "search.scheduler": "none",
        "training.num_epochs": "1",
        "training.micro_batch": "1",
        "evaluation.images_per_condition": str(generated),
        "evaluation.num_steps": str(num_steps),
        "evaluation.batch_size": "1",
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "sweep.run", "--out", str(place / "run"), "--num-trials", "1", *given]
    ran = watched("sweep", command)
    for process, peak in sorted(ran.peaks.items(), key=lambda item: -item[1].resident):
        resident_gib, anonymous_gib = peak.resident / 2**30, peak.anonymous / 2**30
        if resident_gib >= SHOWN_GIB:
            yield Held(process=process, resident_gib=resident_gib, anonymous_gib=anonymous_gib, seconds=ran.seconds)


def table_of(rows: list[Held]) -> Table:
    """The figures for the terminal."""
    table = Table(title="One LoRA trial, from films to scores", title_justify="left")
    for name in ("process", "resident, GiB", "without mapped files, GiB"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for row in rows:
        table.add_row(row.process, f"{row.resident_gib:.2f}", f"{row.anonymous_gib:.2f}")
    return table


if __name__ == "__main__":
    typer.run(main)
