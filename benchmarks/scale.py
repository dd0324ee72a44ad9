"""Whether memory stays the same as films become more, from the raw films to the report: `python -m benchmarks.scale`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import psutil
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.watching import watched
from sweep.config import DataConfig, SweepConfig
from sweep.trials.latent_cache import latent_cache
from trainables.base_models.models import load_base
from trainables.datasets.base import SPLIT_SHARES, SPLITS, ImageTextSample, ImageTextSource, SourceOptions
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.feeding import BatchFeeder

CONDITIONS = ("Edema", "No Finding")
FILMS_OF_A_PATIENT = 2
STEPS = 20
CHEXPERT, SIDE_512 = 223_414, 512
BYTES_OF_512 = 8 * 64 * 64 * 4
"""Mean and log variance of Stable Diffusion 1.5's latents of a film of 512 px, in float32."""


class ManyFilms(ImageTextSource):
    """Films that are a patch of their own brightness on noise, so that any number is there at once.

    Args:
        counts: films of each split.
        resolution_px: their side.
    """

    name: ClassVar[str] = "many"
    conditions = CONDITIONS

    def __init__(self, counts: Mapping[str, int], resolution_px: int = 64) -> None:
        self.prompts = SourceOptions().template()
        self.resolution_px, self._counts = resolution_px, dict(counts)

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        """As many films as patients are asked for."""
        return cls(shared_out(options.num_patients or 1000))

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        """The films of a split."""
        for number in range(self.num_samples(split)):
            random = np.random.default_rng((SPLITS.index(split), number))
            side = self.resolution_px
            image = random.integers(0, 128, (side, side), np.uint8)
            label = CONDITIONS[number % 2]
            image[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] += np.uint8(
                100 if label == CONDITIONS[0] else 20
            )
            yield ImageTextSample(
                image=image,
                prompt=self.prompts.prompt((label,)),
                conditions=(label,),
                patient_id=f"{split}{number // FILMS_OF_A_PATIENT}",
                image_id=f"{split}{number}",
            )

    def num_samples(self, split: str) -> int:
        """Films in a split."""
        return self._counts[split]

    def fingerprint(self) -> str:
        """The same for as many films."""
        return f"many{self._counts}-{self.resolution_px}px"


def shared_out(num_films: int) -> dict[str, int]:
    """So many films over the splits."""
    return {split: int(num_films * share) for split, share in zip(SPLITS, SPLIT_SHARES, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage took.

    Attributes:
        name: of the stage.
        films: prepared in all.
        seconds: of all of it.
        peak_mib: the most anonymous memory of one process; pages of mapped files are the system's to take back.
        process: which one it was.
        written: bytes that were handed to the system to be written, where the stage says so, over those of the cache.
    """

    name: str
    films: int
    seconds: float
    peak_mib: float
    process: str
    written: float | None = None


def main(
    films: Annotated[list[int] | None, typer.Option(min=200, help="How many; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where all goes; a folder of its own if not given.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where figures go as they are had.")] = None,
    final: Annotated[bool, typer.Option(help="Evaluate a finalist too, which searches all films for copies.")] = True,
    stage: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prepare films, fill the cache, train two trials of a few steps, evaluate, write the report; one row a stage.

    Example: python -m benchmarks.scale --films 10000 --films 100000 --json scale.json
    """
    counts = films or [10_000, 100_000]
    if stage is not None and folder is not None:
        print(json.dumps(IN_PROCESS[stage](folder, counts[0])))
        return
    rows: list[Stage] = []
    for count in counts:
        with TemporaryDirectory(dir=folder) as place:
            for row in stages(Path(place), count, final=final):
                rows.append(row)
                if json_file is not None:
                    json_file.write_text(json.dumps([asdict(each) for each in rows], indent=2) + "\n")
                print(f"{row.films:,} {row.name}: {row.seconds:.1f} s, {row.peak_mib:.0f} MiB", file=sys.stderr)
    Console().print(table_of(rows))
    Console().print(forecast(rows), soft_wrap=True)


def stages(place: Path, films: int, *, final: bool) -> Iterator[Stage]:
    """Run one stage after the other, each in processes of its own."""
    here = [sys.executable, "-m", "benchmarks.scale", "--films", str(films), "--folder", str(place), "--stage"]
    out = str(place / "run")
    settings = {
        "data.source": "prepared",
        "data.path": str(place / "prepared"),
        "search.strategies": "[lora]",
        "search.scheduler": "none",
        "search.budget.steps": str(STEPS),
        "training.num_epochs": "1",
        "evaluation.images_per_condition": "4",
        "evaluation.num_steps": "2",
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    commands = {
        "prepare": [*here, "prepare"],
        "latents": [*here, "latents"],
        "sweep": [sys.executable, "-m", "sweep.run", "--out", out, "--num-trials", "2", *given],
        "final evaluation": [sys.executable, "-m", "sweep.evaluate", "--run", out, "--pick", "best:fid_mini"],
        "report": [sys.executable, "-m", "analysis.report", "--run", out],
    }
    for name, command in commands.items():
        if final or name != "final evaluation":
            yield measured(name, films, command)


def measured(name: str, films: int, command: Sequence[str]) -> Stage:
    """Run a command, and look at all of its processes while it runs."""
    ran = watched(name, command)
    process, peak = ran.largest
    last = ran.said.strip().splitlines()[-1] if ran.said.strip() else ""
    written = json.loads(last)["written"] if last.startswith("{") else None
    return Stage(
        name=name,
        films=films,
        seconds=ran.seconds,
        peak_mib=peak.anonymous / 2**20,
        process=process,
        written=written,
    )


def prepare(place: Path, films: int) -> dict[str, Any]:
    """Write the films as a data set."""
    write_dataset(ManyFilms(shared_out(films)), place / "prepared")
    return {"written": None}


def fill(place: Path, films: int) -> dict[str, Any]:
    """Fill the cache as a trial would, and say what was written for it."""
    torch.set_num_threads(1)
    config = SweepConfig(data=DataConfig(source="prepared", path=place / "prepared"))
    dataset, folder = PreparedDataset.open(place / "prepared"), latent_cache(config, place / "run")
    before = psutil.Process().io_counters().write_chars
    BatchFeeder(
        models=load_base("mini"),
        data=dataset.split("train"),
        data_key=f"{dataset.fingerprint}-train",
        trained=(),
        cache_folder=folder,
        caption_dropout=0.1,
    )
    written = psutil.Process().io_counters().write_chars - before
    size = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
    return {"written": written / size}


IN_PROCESS = {"prepare": prepare, "latents": fill}
"""Stages that are no command of the project."""


def table_of(rows: Sequence[Stage]) -> Table:
    """The figures for the terminal."""
    table = Table(title="From raw films to the report, 64 px, mini base", title_justify="left")
    for name in ("stage", "films", "s", "peak MiB of a process", "which", "written / cache"):
        table.add_column(name, justify="left" if name in ("stage", "which") else "right")
    for row in rows:
        written = "" if row.written is None else f"{row.written:.3f}"
        table.add_row(
            row.name, f"{row.films:,}", f"{row.seconds:.1f}", f"{row.peak_mib:.0f}", row.process[-30:], written
        )
    return table


def forecast(rows: Sequence[Stage]) -> str:
    """What the figures make for CheXpert's films at 512 px, and what they do not tell."""
    train = int(CHEXPERT * SPLIT_SHARES[0])
    shares = [row.written for row in rows if row.written is not None]
    return (
        f"{CHEXPERT:,} films at {SIDE_512} px have latents of {train * BYTES_OF_512 / 1e9:.1f} GB for {train:,} training films, "
        f"of which {max(shares, default=float('nan')):.3f} times as many bytes are written; memory is that of one part of "
        "32 MiB beside the models. Seconds at 512 px are those of Stable Diffusion's autoencoder, which this does not measure."
    )


if __name__ == "__main__":
    typer.run(main)
