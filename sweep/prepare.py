"""`python -m sweep.prepare`: turn radiographs and their labels into a prepared data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from analysis.checks import look_up
from analysis.terminal import explained, new_console
from trainables.datasets import SOURCES
from trainables.datasets.base import SPLITS, ImageTextSource, SourceOptions
from trainables.datasets.contact_sheet import contact_sheet
from trainables.datasets.files import require_free
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset

SHEET = "sheet.png"


def main(
    source: Annotated[str, typer.Argument(help=f"One of {', '.join(SOURCES)}.")],
    to: Annotated[Path, typer.Option(help="The folder to make.", metavar="PREPARED")],
    root: Annotated[Path | None, typer.Option(help="Folder of the raw data; none for the phantom.")] = None,
    resolution: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    num_patients: Annotated[int | None, typer.Option(help="Patients to generate; phantom only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, or of the phantom.")] = 0,
    condition: Annotated[
        list[str] | None, typer.Option(help="Finding to evaluate by; may be repeated. Default: all with enough films.")
    ] = None,
    view_in_prompt: Annotated[bool, typer.Option("--view-in-prompt", help="Name the view in the prompts.")] = False,
) -> None:
    """Read and check radiographs with their labels, split them by patient, and write one data set.

    Example: python -m sweep.prepare nih_cxr14 --root data/ChestX-ray14 --to prepared/nih

    Without data: python -m sweep.prepare phantom --num-patients 600 --to prepared/phantom
    """
    options = SourceOptions(
        root=root,
        resolution_px=resolution,
        seed=seed,
        num_patients=num_patients,
        conditions=tuple(condition) if condition else None,
        with_view=view_in_prompt,
    )
    console = new_console()
    with explained():
        require_free(to)
        prepared = prepare(open_source(source, options), to, console)
    console.print(summary_table(prepared))
    console.print(
        f"\nLook at  {shlex.quote(str(to / SHEET))}\n"
        f"Sweep    python -m sweep.run --set data.source=prepared --set {shlex.quote(f'data.path={to}')}",
        soft_wrap=True,
        markup=False,
    )


def open_source(name: str, options: SourceOptions) -> ImageTextSource:
    """The source of this name.

    Raises:
        ValueError: the name is unknown, or the source refuses an option.
        OSError: its files are missing.
    """
    return look_up(SOURCES, name, "SOURCE").create(options)


def prepare(source: ImageTextSource, to: Path, console: Console) -> PreparedDataset:
    """Write the data set and its contact sheet, showing progress."""
    total = sum(source.num_samples(split) for split in SPLITS)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(f"preparing {source.name}", total=total)
        prepared = write_dataset(source, to, on_progress=lambda done: progress.update(task, completed=done))
    contact_sheet(prepared).save(to / SHEET)
    return prepared


def summary_table(prepared: PreparedDataset) -> Table:
    """Images, patients and findings of each split, for the terminal."""
    title = f"{prepared.name}, {prepared.resolution_px} px, {prepared.fingerprint[:12]}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for split in SPLITS:
        table.add_column(split, justify="right")
    summary = prepared.summary()
    for row in ("patients", "images", *prepared.conditions):
        table.add_row(row, *(f"{summary[split][row]:,}" for split in SPLITS), end_section=row == "images")
    return table


if __name__ == "__main__":
    typer.run(main)
