"""Times the preparation of CheXpert's whole table, on small distinct pictures, beside a plain loop: `python -m benchmarks.prepare`."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.chexpert import CheXpertSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset

T = TypeVar("T")
STUB_PX = 32
PER_PROCESS = 2000
console = Console()


def main(
    num_films: Annotated[
        int | None, typer.Option(min=100, help="Rows of the table; all 223,414 where not given.")
    ] = None,
    resolution: Annotated[int, typer.Option(help="Side of the prepared films in pixels.")] = 64,
    folder: Annotated[Path | None, typer.Option(help="Where the films go; a folder of their own if not given.")] = None,
) -> None:
    """Prepare CheXpert's real label table, as torchxrayvision's package has it, with a picture of its own for each film.

    Making the pictures, on all cores, is not timed. The plain loop opens, turns grey and resizes the same frontal pictures one by one, and
    keeps them in memory: it checks nothing.

    Example: python -m benchmarks.prepare --num-films 5000
    """
    with TemporaryDirectory(dir=folder) as place:
        root = Path(place)
        table = make_collection(root / "raw", num_films)
        before_s = time.process_time()
        prepared, prepared_s = timed(lambda: prepare(root, resolution))
        busy_s = time.process_time() - before_s
        require_equal_counts(prepared, table)
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # it has threads, and no processes
        count = sum(prepared.num_samples.values())
        paths = [root / "raw" / path.partition("/")[2] for path in table[table["Frontal/Lateral"] == "Frontal"]["Path"]]
        _, plain_s = timed(lambda: plain_loop(paths[:count], resolution))
        console.print(
            f"prepared {count:,} of {len(table):,} films at {resolution} px in {prepared_s:.1f} s, {count / prepared_s:,.0f}/s "
            f"and {busy_s:.1f} s of processor; "
            f"plain loop {min(count, len(paths)) / plain_s:,.0f}/s; peak memory {peak_gib:.2f} GiB",
            soft_wrap=True,
        )
        shutil.rmtree(root / "raw")


def make_collection(root: Path, num_films: int | None) -> pd.DataFrame:
    """CheXpert's layout with the first rows of the real table, and noise of its own seed for every film."""
    package = importlib.util.find_spec("torchxrayvision")
    source = Path((package.origin if package else None) or "").parent / "data" / "chexpert_train.csv.gz"
    table = pd.read_csv(source, nrows=num_films, dtype=str, keep_default_na=False)
    root.mkdir()
    table.to_csv(root / "train.csv", index=False)
    places = [str(root / path.partition("/")[2]) for path in table["Path"]]
    starts = range(0, len(places), PER_PROCESS)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as processes:
        parts = [processes.submit(make_pictures, places[start : start + PER_PROCESS], start) for start in starts]
        for part in track(as_completed(parts), description="making pictures", total=len(parts), console=console):
            part.result()
    return table


def make_pictures(places: Sequence[str], first: int) -> None:
    """Noise by the number of each film, from that of the first."""
    for number, place in enumerate(places, start=first):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (STUB_PX, STUB_PX), np.uint8)
        Image.fromarray(noise).save(place, "PNG", compress_level=0)


def prepare(root: Path, resolution_px: int) -> PreparedDataset:
    """As `sweep.prepare chexpert` does."""
    source = CheXpertSource.create(SourceOptions(root=root / "raw", resolution_px=resolution_px, scratch=root))
    return write_dataset(source, root / "prepared")


def plain_loop(paths: list[Path], resolution_px: int) -> list[NDArray[Any]]:
    """One picture after the other, with nothing checked."""
    size = (resolution_px, resolution_px)
    return [np.asarray(Image.open(path).convert("L").resize(size, Image.Resampling.LANCZOS)) for path in paths]


def require_equal_counts(prepared: PreparedDataset, table: pd.DataFrame) -> None:
    """The films of each condition, beside pandas' count.

    Raises:
        RuntimeError: they differ.
    """
    frontal = table[(table["Frontal/Lateral"] == "Frontal") & table["AP/PA"].isin(["AP", "PA"])]
    counts = sum((prepared.labels()[split] for split in SPLITS), Counter[str]())
    for name in prepared.conditions:
        expected = int((frontal[name] == "1.0").sum())
        if counts[name] != expected:
            raise RuntimeError(f"`{name}` must be on {expected:,} films, but got {counts[name]:,}.")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and how many seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
