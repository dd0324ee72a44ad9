"""`python -m sweep.prepare`: turn radiographs and their labels into a prepared data set."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from analysis.checks import look_up
from analysis.terminal import explained, fail, new_console
from trainables.datasets import SOURCES
from trainables.datasets.base import SPLITS, ImageTextSource, SourceOptions
from trainables.datasets.captions import TEMPLATES, may_be_cut
from trainables.datasets.contact_sheet import contact_sheet
from trainables.datasets.containers import require_range
from trainables.datasets.ct_windows import CT_WINDOWS
from trainables.datasets.data_card import CARD_NAME, write_card
from trainables.datasets.files import partial_of, require_free, standing_folder
from trainables.datasets.images import FITS
from trainables.datasets.parallel import Mapper, in_order
from trainables.datasets.problems import count_of, described
from trainables.datasets.rules import HASH, LABELERS, POLICIES, SECTIONS, LabelRules
from trainables.datasets.splits import read_sizes
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset

SHEET = "sheet.png"
Conditions = Annotated[
    list[str] | None, typer.Option(help="Finding to evaluate by; may be repeated. Default: all with enough films.")
]
LabelMap = Annotated[
    Path | None, typer.Option(help="CSV with the columns label, finding: what your own labels mean.", metavar="FILE")
]
Bits = Annotated[
    int | None, typer.Option(min=1, max=31, help="Bits that deep pictures store, where their levels do not tell.")
]
GreyLevels = Annotated[
    tuple[float, float] | None, typer.Option("--range", help="Levels of black and white.", metavar="LOW HIGH")
]
Window = Annotated[str | None, typer.Option(help=f"Window of CT in DICOM files: {', '.join(CT_WINDOWS)}.")]

Caption = Annotated[
    str, typer.Option(help=f"How captions are made: {', '.join(TEMPLATES)}; text is each film's own report or text.")
]
Uncertain = Annotated[str, typer.Option(help=f"What uncertain labels count as: {', '.join(POLICIES)}.")]
Blank = Annotated[str, typer.Option(help=f"What findings that are not mentioned count as: {', '.join(POLICIES)}.")]
Sizes = Annotated[
    str | None,
    typer.Option(
        help="Films of train,validation,test, as 20000,8000,28655 or 70%,15%,15%; or a CSV file with the columns condition, "
        "train, validation, test.",
        metavar="SIZES",
    ),
]
Split = Annotated[
    str, typer.Option(help="hash of the patient; own: the collection's; or the column of the table that names it.")
]
MaxRejects = Annotated[
    float, typer.Option(min=0, max=1, help="Share of films that may be left out: not there, or not to be read.")
]
NumTrain = Annotated[
    int | None, typer.Option(min=1, help="Training films to keep; those of a smaller number are among a larger's.")
]

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster that reads the films, HOST:PORT or auto; it sees them under the same path. Default: this machine.",
        metavar="ADDRESS",
    ),
]


def main(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help=f"One of {', '.join(SOURCES)}.")],
    to: Annotated[Path | None, typer.Option(help="The folder to make.", metavar="PREPARED")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the raw data; none for the phantom.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="List all problems of the raw data, and make nothing.")
    ] = False,
    resolution: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    num_patients: Annotated[int | None, typer.Option(help="Patients to generate; phantom only.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, or of the phantom.")] = 0,
    condition: Conditions = None,
    label_map: LabelMap = None,
    uncertain: Uncertain = "ignore",
    blank: Blank = "zeros",
    labeler: Annotated[str, typer.Option(help=f"Whose labels, of MIMIC-CXR: {', '.join(LABELERS)}.")] = "chexpert",
    bits: Bits = None,
    grey_range: GreyLevels = None,
    window: Window = None,
    caption: Caption = "subject",
    section: Annotated[str, typer.Option(help=f"Of reports as captions: {', '.join(SECTIONS)}.")] = "impression",
    view_in_prompt: Annotated[bool, typer.Option("--view-in-prompt", help="Name the view in the prompts.")] = False,
    age_in_prompt: Annotated[bool, typer.Option("--age-in-prompt", help="Name the age in the prompts.")] = False,
    sex_in_prompt: Annotated[bool, typer.Option("--sex-in-prompt", help="Name the sex in the prompts.")] = False,
    fit: Annotated[str, typer.Option(help=f"How films become square: {', '.join(FITS)}.")] = "stretch",
    max_rejects: MaxRejects = 0.01,
    split: Split = HASH,
    sizes: Sizes = None,
    num_train: NumTrain = None,
    base: Annotated[str, typer.Option(help="Base model by whose tokenizer captions are measured.")] = "mini",
    address: Address = None,
) -> None:
    """Read and check radiographs with their labels, split them by patient, and write one data set.

    Example: python -m sweep.prepare nih_cxr14 --root data/ChestX-ray14 --to prepared/nih

    All that is wrong: python -m sweep.prepare nih_cxr14 --root data/ChestX-ray14 --check

    Without data: python -m sweep.prepare phantom --num-patients 600 --to prepared/phantom
    """
    console = new_console()
    with explained(lambda: _how_to_go_on(to)), _mapper(address) as mapper:
        options = replace(_options(context.params), mapper=mapper)
        if check:
            _check(source, options, base, console)
        else:
            _prepare_into(_required(to), source, options, base=base, console=console)


def _how_to_go_on(to: Path | None) -> str:
    kept = to is not None and partial_of(to).is_dir()
    return "What was prepared is kept: the same command goes on." if kept else ""


@contextmanager
def _mapper(address: str | None) -> Iterator[Mapper]:
    """What does the work on each film: this machine's cores, or a cluster."""
    if address is None:
        yield in_order
        return
    from sweep.trials.mapping import ray_mapper  # Ray takes seconds

    with ray_mapper(address) as mapper:
        yield mapper


def _options(given: Mapping[str, Any]) -> SourceOptions:
    """What the user said, by the names of the command's parameters.

    Raises:
        ValueError: two of the options exclude each other, or one has no such value.
    """
    if given["bits"] is not None and given["grey_range"] is not None:
        raise ValueError("`--bits` and `--range` must be given one at a time, but got both. Leave one out.")
    same = ("root", "seed", "num_patients", "label_map", "bits", "window", "caption", "num_train", "fit", "max_rejects")
    rules = ("uncertain", "blank", "labeler", "section", "split")
    return SourceOptions(
        **{name: given[name] for name in same},
        rules=LabelRules(**{name: given[name] for name in rules}),
        resolution_px=given["resolution"],
        conditions=tuple(given["condition"]) if given["condition"] else None,
        with_view=given["view_in_prompt"],
        with_age=given["age_in_prompt"],
        with_sex=given["sex_in_prompt"],
        sizes=read_sizes(given["sizes"]) if given["sizes"] else None,
        grey_range=require_range(*given["grey_range"]) if given["grey_range"] else None,
        num_tokens_of=_num_tokens_of(given["base"]) if given["caption"] == "text" else None,
    )


def _num_tokens_of(base: str) -> Callable[[str], int]:
    """Counts the tokens of a text by a base's tokenizer, which is loaded for the first text that may be too long."""

    def num_tokens(text: str) -> int:
        if not may_be_cut([text]):
            return 0
        from trainables.caption_lengths import token_counter  # torch takes seconds

        return token_counter(base)(text)

    return num_tokens


def _check(name: str, options: SourceOptions, base: str, console: Console) -> None:
    with _looking(console) as on_film:
        checked = look_up(SOURCES, name, "SOURCE").check(replace(options, on_film=on_film))
    _say(checked.said, checked.captions, base, console)
    messages = described(checked.problems)
    for message in messages:
        console.print(f"[red]problem[/red] {escape(message)}", soft_wrap=True)
    if messages:
        fail(f"{count_of(len(messages), 'problem')} to mend before these films can be prepared.")
    console.print("There is no problem: these films can be prepared.")


def _required(to: Path | None) -> Path:
    if to is None:
        raise ValueError("`--to` must be the folder to make, but got none. Give --to PREPARED, or only --check.")
    require_free(to)
    return to


def _prepare_into(to: Path, name: str, options: SourceOptions, *, base: str, console: Console) -> None:
    with _looking(console) as on_film:
        source = open_source(name, replace(options, on_film=on_film, scratch=standing_folder(to)))
    prepared = prepare(source, to, console)
    captions = [prompt for split in SPLITS for prompt in prepared.split(split).prompts]
    _say(prepared.said, captions, base, console)
    console.print(summary_table(prepared))
    console.print(
        f"\nLook at  {shlex.quote(str(to / f'{CARD_NAME}.html'))}\n"
        f"Sweep    python -m sweep.run --set data.source=prepared --set {shlex.quote(f'data.path={to}')}",
        soft_wrap=True,
        markup=False,
    )


def _say(said: Sequence[str], captions: Sequence[str], base: str, console: Console) -> None:
    """Print what was made of the data; the tokenizer is only loaded where a caption may be too long for it."""
    note = ""
    if may_be_cut(captions):
        from trainables.caption_lengths import caption_note  # torch takes seconds

        note = caption_note(base, captions)
    for sentence in (*said, *([f"By the tokenizer of base {base!r}: {note}"] if note else [])):
        console.print(f"[yellow]note[/yellow] {escape(sentence)}", soft_wrap=True)


@contextmanager
def _looking(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar for the first look at all films, shown once there is one to look at."""
    with Progress(*_columns(), console=console, transient=True) as progress:
        task = progress.add_task("looking at all films", total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=done < total)


def _columns() -> tuple[ProgressColumn, ...]:
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return (*bar, TimeElapsedColumn(), TimeRemainingColumn())


def open_source(name: str, options: SourceOptions) -> ImageTextSource:
    """The source of this name.

    Raises:
        ValueError: the name is unknown, or the source refuses an option.
        OSError: its files are missing.
    """
    return look_up(SOURCES, name, "SOURCE").create(options)


def prepare(source: ImageTextSource, to: Path, console: Console) -> PreparedDataset:
    """Write the data set with its contact sheet and its card, showing progress; go on where it was broken off.

    Args:
        source: what to read.
        to: the folder to make.
        console: shows the progress.
    """
    if partial_of(to).is_dir():
        console.print(
            "[yellow]note[/yellow] An earlier attempt was broken off; what it prepared of the same films is kept."
        )
    total = sum(source.num_samples(split) for split in SPLITS)
    with Progress(*_columns(), console=console) as progress:
        task = progress.add_task(f"preparing {source.name}", total=total)
        return write_dataset(
            source, to, on_progress=lambda done: progress.update(task, completed=done), finish=add_sheet_and_card
        )


def add_sheet_and_card(prepared: PreparedDataset) -> None:
    """Add the contact sheet and the card."""
    contact_sheet(prepared).save(prepared.folder / SHEET)
    write_card(prepared)


def summary_table(prepared: PreparedDataset) -> Table:
    """Images, patients and findings of each split, for the terminal."""
    title = f"{prepared.name}, {prepared.resolution_px} px, {prepared.fingerprint[:12]}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for split in SPLITS:
        table.add_column(split, justify="right")
    summary, labels = prepared.summary(), prepared.labels()
    for row in ("patients", "images", *prepared.conditions):
        table.add_row(row, *(f"{summary[split][row]:,}" for split in SPLITS), end_section=row == "images")
    rare = sorted(set().union(*labels.values()) - set(prepared.conditions))
    for row in rare:
        table.add_row(f"({row})", *(f"{labels[split][row]:,}" for split in SPLITS))
    if rare:
        table.caption = "In brackets: labels not evaluated by; --condition chooses."
    return table


if __name__ == "__main__":
    typer.run(main)
