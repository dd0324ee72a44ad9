"""Times the preparation of real films beside torchvision's plain loop, in turns: `python -m benchmarks.prepare_films`."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import Compose, Grayscale, InterpolationMode, PILToTensor, Resize, ToTensor

from benchmarks.prepare import timed
from trainables.datasets.base import SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.writing import write_dataset

OURS: Final = "this project"
PLAIN: Final = {
    "torchvision, Lanczos": InterpolationMode.LANCZOS,
    "torchvision, bilinear": InterpolationMode.BILINEAR,
}
"""The plain loop resampled as this project does, and as torchvision does by default."""
KEPT: Final = "torchvision, Lanczos, kept as 8 bits"
"""The plain loop that makes no floats, and writes what it makes."""
Turns = dict[str, list[tuple[float, float]]]
"""By way, seconds and seconds of processor of each turn."""


def main(
    films: Annotated[Path, typer.Option(help="Folder with a metadata.csv; see the source `folder`.")],
    resolution: Annotated[list[int] | None, typer.Option(help="Side in pixels; may be repeated.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Runs of each, one after the other in turn.")] = 5,
    folder: Annotated[Path | None, typer.Option(help="Where the films go; a folder of their own if not given.")] = None,
) -> None:
    """Prepare films at each resolution, and read them by torchvision's plain loop; images per second, medians of the turns.

    The plain loop opens one film after the other, turns it grey, resizes it with antialias and makes a tensor of floats of it,
    which it drops: it checks nothing and writes nothing. Another loop makes no floats, resamples as this project does, and
    writes 8 bits of each pixel to one file that is on the disk at the end. This project does the work on all cores, and besides
    reads and checks the table, splits by patient, hashes files and samples, looks for near copies, and for copies by the pixels
    of films that look the same, and writes Arrow with checksums that is on the disk at the end.

    Example: python -m benchmarks.prepare_films --films ../shared/data/nih_cxr14_1000_512 --resolution 512 --resolution 256
    """
    paths = [films / row["file"] for row in rows_of(films)]
    table = Table("px", "", "images/s", "of the plain loop's", "ms of processor per image")
    for side in resolution or [512, 256]:
        taken: Turns = {}
        for _ in range(turns):
            with TemporaryDirectory(dir=folder) as place:
                taken.setdefault(OURS, []).append(timed_twice(partial(prepare, films, side, Path(place))))
            for name, mode in PLAIN.items():
                taken.setdefault(name, []).append(timed_twice(partial(plain_loop, paths, side, mode)))
            with TemporaryDirectory(dir=folder) as place:
                taken.setdefault(KEPT, []).append(timed_twice(partial(kept_loop, paths, side, Path(place))))
        add_rows(table, side, len(paths), taken)
    Console().print(table)


def timed_twice(work: Callable[[], object]) -> tuple[float, float]:
    """How many seconds it took, and how many of a processor, which other work on the machine changes less."""
    start = time.process_time()
    _, seconds = timed(work)
    return seconds, time.process_time() - start


def rows_of(films: Path) -> list[dict[str, str]]:
    """The rows of the table."""
    with (films / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def prepare(films: Path, side: int, to: Path) -> None:
    """As `sweep.prepare folder` does, without its contact sheet and card."""
    source = FolderSource.create(SourceOptions(root=films, resolution_px=side, scratch=to))
    require_copies(films, source.said)
    write_dataset(source, to / "prepared")


def require_copies(films: Path, said: tuple[str, ...]) -> None:
    """Films that the table says to be exact copies are said to be.

    Raises:
        RuntimeError: one is not.
    """
    files = {row["nih_image"]: row["file"] for row in rows_of(films)}
    copies = [(files[row["exact_duplicate_of"]], row["file"]) for row in rows_of(films) if row["exact_duplicate_of"]]
    told = [sentence for sentence in said if "same picture" in sentence]
    if not all(any(f"{other} is {first}" in sentence for sentence in told) for first, other in copies):
        raise RuntimeError(f"`said` must name the copies {copies}, but got {told}.")


def plain_loop(paths: list[Path], side: int, mode: InterpolationMode) -> None:
    """One film after the other, with nothing checked."""
    to_tensor = Compose([Grayscale(), Resize((side, side), interpolation=mode, antialias=True), ToTensor()])
    for path in paths:
        with Image.open(path) as image:
            to_tensor(image)


def kept_loop(paths: list[Path], side: int, to: Path) -> None:
    """One film after the other into one file, with nothing checked."""
    to_pixels = Compose([Grayscale(), Resize((side, side), InterpolationMode.LANCZOS, antialias=True), PILToTensor()])
    with (to / "films").open("wb") as file:
        for path in paths:
            with Image.open(path) as image:
                file.write(to_pixels(image).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def add_rows(table: Table, side: int, num_films: int, taken: Turns) -> None:
    """A row for each way: the median and the range of its turns, and how many times as fast this project is.

    Args:
        table: takes the rows.
        side: of the pictures.
        num_films: read in each turn.
        taken: seconds of each turn.
    """
    speeds = {name: [num_films / seconds for seconds, _ in turns] for name, turns in taken.items()}
    ours = median(speeds[OURS])
    for name, values in speeds.items():
        ratio = "" if name == OURS else f"{ours / median(values):.2f}"
        speed = f"{median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"
        of_processor = median(busy for _, busy in taken[name]) / num_films * 1000
        table.add_row(str(side), name, speed, ratio, f"{of_processor:.2f}")


if __name__ == "__main__":
    typer.run(main)
