"""Prompts from the command line or a file, with the seeds of the films that they are for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.checks import look_up
from trainables.settings import MAX_GUIDANCE

NUM_SEEDS = 2**64
"""How many seeds torch's generator tells apart."""
MAX_IMAGES = 10_000
"""The most images of one command: their names have four digits."""
COLUMNS = ("prompt", "seed", "count")
"""Columns of a CSV file of prompts; all but the first may be left out."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A film that is to be generated.

    Attributes:
        prompt: what it is to show, as the text encoder reads it.
        seed: draws its noise; the same prompt and seed give the same film on the same kind of device.
    """

    prompt: str
    seed: int


def wanted_films(prompt: str | None, file: Path | None, *, seed: int, num_images: int) -> list[Wanted]:
    """The films of a prompt, or of all prompts of a file; each prompt's have seeds in a row.

    Args:
        prompt: where there is no file.
        file: one prompt a line; or, where it ends on .csv, the columns prompt, seed and count under a head.
        seed: of each prompt's first film, where the file gives no other.
        num_images: of each prompt, where the file gives no other.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: neither or both are given, there are more films than names, the file has an empty line or a value that
            is no number, or a seed is above 2**64 - 1.
    """
    if (prompt is None) == (file is None):
        came = "neither" if prompt is None else "both"
        raise ValueError(f"`--prompt` or `--prompts` must be given, and one of them, but got {came}. Give one.")
    requests = _from(prompt, file, seed, num_images)
    _expect_few(len(requests))
    return requests


def _expect_few(count: int) -> None:
    if count > MAX_IMAGES:
        raise ValueError(
            f"`--num-images` must be at most {MAX_IMAGES:,}, but got {count:,}. Generate the next with another --seed and "
            "--to."
        )


def _from(prompt: str | None, file: Path | None, seed: int, num_images: int) -> list[Wanted]:
    if file is None:
        return _series(prompt or "", seed, num_images)
    lines = _read(file).splitlines()
    rows = _table(lines) if file.suffix.lower() == ".csv" else ({"prompt": line} for line in lines)
    requests = [film for number, row in enumerate(rows, 1) for film in _of_row(row, number, seed, num_images)]
    if not requests:
        raise ValueError(f"`--prompts` must have a prompt, but got an empty file: {file}. Write one a line.")
    return requests


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"`--prompts` must be a file, but got {str(file)!r}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"`--prompts` must be text in UTF-8, but got {error} in {file}. Save it anew.") from error


def _table(lines: Sequence[str]) -> Iterator[Mapping[str, str | None]]:
    table = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
    for name in table.fieldnames or ():
        look_up(dict.fromkeys(COLUMNS, True), name, "column of --prompts")
    if "prompt" not in (table.fieldnames or ()):
        raise ValueError(
            "`--prompts` must have a column prompt under a head, but got none. Write prompt,seed,count first."
        )
    return iter(table)


def _of_row(row: Mapping[str, str | None], number: int, seed: int, num_images: int) -> list[Wanted]:
    prompt = (row.get("prompt") or "").strip()
    if not prompt:
        raise ValueError(f"`--prompts` must have a prompt on each line, but got none in row {number}. Remove the line.")
    first = _number(row.get("seed"), "seed", number, seed)
    return _series(prompt, first, _number(row.get("count"), "count", number, num_images, least=1))


def _number(text: str | None, name: str, number: int, default: int, *, least: int = 0) -> int:
    if text is None or not text.strip():
        return default
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}, but got {text!r} in row {number}. Leave it empty for the "
            "command's own."
        )
    return int(text)


def _series(prompt: str, seed: int, count: int) -> list[Wanted]:
    _expect_few(count)
    if seed + count > NUM_SEEDS:
        raise ValueError(
            f"`--seed` and those of the next images must be below 2**64, but got {seed} for {count} images. Try 0."
        )
    return [Wanted(prompt=prompt, seed=seed + number) for number in range(count)]


def expect_guidance(guidance: float) -> None:
    """Refuse a guidance that is no number.

    Raises:
        ValueError: it is NaN or beyond what leaves an image finite.
    """
    if not abs(guidance) <= MAX_GUIDANCE:  # nor is NaN
        raise ValueError(f"`--guidance` must be a number of at most {MAX_GUIDANCE:g}, but got {guidance:g}. Try 4.")
