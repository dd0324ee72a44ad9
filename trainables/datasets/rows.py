"""Label files as rows of text: CSV with a header, in UTF-8 or in UTF-16 with its mark, packed by gzip or zip or not."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainables.datasets.problems import Ledger, listed

RELEASED = "Use the label file as it was released."
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
ENCODING_REMEDY = "Save it as UTF-8."
MISSING = frozenset(
    ("", "nan", "none", "null", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "-", "--", "?", "unknown", "missing")
)
"""How tables say that they do not know, in small letters."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: the line that it begins on, and its values by the names of their columns, without white space around.

    Attributes:
        line: 1-based, in the file, where the row begins.
        values: by column; an empty cell is an empty string.
    """

    line: int
    values: Mapping[str, str]


@lru_cache(maxsize=4096)
def is_missing(text: str) -> bool:
    """Whether a table says by this text that it does not know."""
    return text.strip().casefold() in MISSING


def read_rows(
    table: Path,
    columns: Sequence[Sequence[str]],
    ledger: Ledger,
    remedy: str = RELEASED,
    *,
    optional: Sequence[Sequence[str]] = (),
) -> list[TableRow]:
    """All rows of a table that are as long as its header, with the columns that are asked for.

    Args:
        table: a CSV file.
        columns: those it must have, each with its spellings.
        ledger: takes rows of another length.
        remedy: what to do where a column is missing.
        optional: those it may have.

    Raises:
        CollectionError: it is not text in a known encoding, no proper CSV, lacks a column or has no rows.
    """
    lines = csv.reader(io.StringIO(_text(table, ledger), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        remedy = (
            "Save it with commas between the columns." if len(header) == 1 and set(header[0]) & set(";\t") else remedy
        )
        _require_columns(table, header, columns, ledger, remedy, optional=optional)
        return _rows(table, header, lines, ledger, kept={name for names in (*columns, *optional) for name in names})
    except csv.Error as error:
        rule, remedy = f"`{table.name}` must be a CSV file", "Close the quotes there or before, or save it anew."
        ledger.refuse(rule, str(error), remedy, file=table.name, line=lines.line_num)
        ledger.stop()
        raise  # not reached: there is a problem


def _rows(
    table: Path, header: list[str], lines: Iterator[list[str]], ledger: Ledger, *, kept: Container[str]
) -> list[TableRow]:
    rows, begun = [], 2
    places = [(place, name) for place, name in enumerate(header) if name in kept]
    rule = f"`{table.name}` must have {len(header)} values in every row, as in its header"
    for values in lines:
        filled = any(value.strip() for value in values)  # spreadsheets leave rows of nothing but commas behind
        if filled and len(values) != len(header):
            remedy = "Complete the row, or put values that hold a comma in double quotes."
            ledger.refuse(rule, str(len(values)), remedy, file=table.name, line=begun)
        elif filled:
            rows.append(TableRow(begun, {name: values[place].strip() for place, name in places}))
        begun = lines.line_num + 1  # type: ignore[attr-defined]
    if not rows and not ledger.problems:
        ledger.refuse(f"`{table.name}` must have at least one row", "none", "Use the whole file.", file=table.name)
    if not rows:
        ledger.stop()
    return rows


def _text(table: Path, ledger: Ledger) -> str:
    content = _unpacked(table, ledger)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    rule = f"`{table.name}` must be text in UTF-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        came = f"the byte {content[error.start]:#04x}"
        ledger.refuse(rule, came, ENCODING_REMEDY, file=table.name, line=line)
        ledger.stop()
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        ledger.refuse(rule, "a zero byte, as in UTF-16 without its mark", ENCODING_REMEDY, file=table.name, line=line)
        ledger.stop()
    return text


def _unpacked(table: Path, ledger: Ledger) -> bytes:
    content = table.read_bytes()
    try:
        if content.startswith(GZIP):
            return gzip.decompress(content)
        if content.startswith(ZIP):
            with zipfile.ZipFile(table) as packed:
                [name] = [name for name in packed.namelist() if not name.startswith("__MACOSX")]
                return packed.read(name)
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        rule = f"`{table.name}` must be a packed table that can be unpacked"
        ledger.refuse(rule, str(error) or type(error).__name__, "Restore the file, or unpack it.", file=table.name)
        ledger.stop()
    return content


def _require_columns(
    table: Path,
    header: list[str],
    columns: Sequence[Sequence[str]],
    ledger: Ledger,
    remedy: str,
    *,
    optional: Sequence[Sequence[str]] = (),
) -> None:
    names = [spellings[0] for spellings in columns]
    missing = [spellings[0] for spellings in columns if not set(header) & set(spellings)]
    if missing:
        rule = f"`{table.name}` must have the columns {', '.join(names)}, separated by commas"
        came = f"no {', '.join(missing)} among {listed(map(repr, header)) or 'none'}"
        ledger.refuse(rule, came, remedy)
    given: Counter[str] = Counter(header)
    for spellings in (*columns, *optional):
        double = [name for name in spellings for _ in range(given[name])]
        if len(double) > 1:
            rule = f"`{table.name}` must have the column {spellings[0]} once"
            ledger.refuse(rule, " and ".join(double), "Remove or rename one.")
    ledger.stop()
