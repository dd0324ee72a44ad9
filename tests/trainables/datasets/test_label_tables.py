"""Hundreds of label tables as people write them: refused with file and line, or counted as somebody else counts them.

The other reading is pandas' and a few rules of its own; it shares no code and no list of spellings with ours.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.datasets.base import split_of_patient
from trainables.datasets.nih_cxr14 import FOLDER
from trainables.datasets.patients import known_patients
from trainables.datasets.problems import CollectionError, Ledger, described

NUM_EXAMPLES = 500
COLUMNS = ["file", "patient_id", "age", "sex", "view", "labels"]
BAD_IDS = ("", "nan", " ", "NULL", "1.2E+11")
BAD_LABELS = (
    "",
    "nan",
    "['Edema']",
    "No Finding|Edema",
    "Pneumothorx",
    "Edema, gout",
    "7",
    "no finding; Mass",
    '"Edema"',
)
FINDINGS = ("No Finding", "Edema", "Effusion", "Pleural_Thickening", "Mass", "gout")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1")


@dataclass(frozen=True)
class Table:
    """What stands in a file."""

    rows: list[dict[str, str]]
    columns: list[str]
    encoding: str
    newline: str
    cut_row: int | None


class Choices:
    """Many small choices from one drawn number, which costs less than drawing each."""

    def __init__(self, number: int) -> None:
        self.left = number

    def below(self, end: int) -> int:
        self.left, choice = divmod(self.left, end)
        return choice

    def of(self, values: Sequence[str]) -> str:
        return values[self.below(len(values))]


def spelt(text: str, how: int) -> str:
    return (text, text.lower(), text.upper(), text.replace(" ", "_"), f" {text} ")[how]


def patient(choices: Choices) -> str:
    if choices.below(60) == 59:
        return choices.of(BAD_IDS)
    number, form = choices.below(12) + 1, choices.below(6)
    return (str(number), f"{number:04d}", f"{number}.0", f"P{number}", f"p{number:03d}", f" {number} ")[form]


def cell(choices: Choices) -> str:
    if choices.below(80) == 79:
        return choices.of(BAD_LABELS)
    names = [choices.of(FINDINGS[1:]) for _ in range(choices.below(4))] or [FINDINGS[0]]
    separator = "|" if "gout" in names else choices.of(("|", ", ", ";", " | "))
    return separator.join(spelt(name, choices.below(5)) for name in names)


def row(number: int, choices: Choices) -> dict[str, str]:
    return {
        "file": f"{choices.of('ab')}/{number}.png",
        "patient_id": patient(choices),
        "age": choices.of(("54", "54.0", "054Y", "", "nan", "411", "old")),
        "sex": choices.of(("M", "f", "Male", " F", "", "x")),
        "view": choices.of(("PA", "ap", "Frontal PA", "LATERAL", "", "Müller")),
        "labels": cell(choices),
    }


@st.composite
def tables(draw: st.DrawFn) -> Table:
    numbers = draw(st.lists(st.integers(0, 2**60), min_size=1, max_size=8))
    rows = [row(place, Choices(number)) for place, number in enumerate(numbers)]
    choices = Choices(draw(st.integers(0, 2**40)))
    if choices.below(20) == 19:
        rows.append(rows[choices.below(len(rows))])
    columns = COLUMNS + ["remark"] * choices.below(2)
    return Table(
        rows=rows,
        columns=[columns.pop(choices.below(len(columns))) for _ in range(len(columns))],
        encoding=choices.of(ENCODINGS),
        newline=choices.of(("\n", "\r\n")),
        cut_row=choices.below(8) if choices.below(40) == 39 else None,
    )


def content(table: Table) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=table.newline)
    writer.writerow(table.columns)
    for number, row in enumerate(table.rows):
        values = [row.get(column, "seen, and filed") for column in table.columns]
        writer.writerow(values[:-1] if number == table.cut_row else values)
    return text.getvalue().encode(table.encoding)


def should_be_refused(table: Table) -> bool:
    """By the drawn values, before they were written."""
    if table.encoding == "latin-1" and any(row["view"] == "Müller" for row in table.rows):
        return True
    frontal = [row for row in table.rows if row["view"] != "LATERAL"]
    bad = not frontal or any(row["patient_id"] in BAD_IDS or row["labels"] in BAD_LABELS for row in frontal)
    files = [row["file"] for row in frontal]
    return bad or len(files) > len(set(files)) or (table.cut_row is not None and table.cut_row < len(table.rows))


def other_reading(file: Path, encoding: str) -> tuple[Counter[str], set[frozenset[str]]]:
    """Films of each finding, and the sets of files of each patient, as pandas reads them."""
    frame = pandas.read_csv(file, dtype=str, keep_default_na=False, encoding=encoding, skipinitialspace=True)
    columns = (frame[column].tolist() for column in ("view", "labels", "patient_id", "file"))
    rows = [row for row in zip(*columns, strict=True) if row[0] != "LATERAL"]
    names = [re.split(r"[|,;]", labels.lower().replace("_", " ")) for _, labels, _, _ in rows]
    findings = [{name.strip() for name in row} - {""} for row in names]
    findings = [{"pleural effusion" if name == "effusion" else name for name in row} for row in findings]
    who = [re.sub(r"\.0$", "", name.strip().lower()) for _, _, name, _ in rows]
    who = [("p" if name.startswith("p") else "") + str(int(name.lstrip("p"))) for name in who]
    groups: dict[str, set[str]] = defaultdict(set)
    for name, (*_, path) in zip(who, rows, strict=True):
        groups[name].add(path.strip())
    return Counter(name for row in findings for name in row), {frozenset(group) for group in groups.values()}


def in_split(patient_id: str) -> str:
    """The published rule again: the first 8 bytes of SHA-256 of seed and patient, at 70, 15 and 15 %."""
    position = int(hashlib.sha256(f"0/{patient_id}".encode()).hexdigest()[:16], 16) / 16**16
    return "train" if position < 0.70 else "validation" if position < 0.85 else "test"


@pytest.mark.slow
@settings(max_examples=NUM_EXAMPLES)
@given(tables())
def test_tables_are_refused_with_file_and_line_or_counted_rightly(table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "metadata.csv"
        file.write_bytes(content(table))
        ledger = Ledger()
        try:
            films = FOLDER.reader.read(file, FOLDER.reader.vocabulary({}), ledger)
            films = known_patients(films, ledger)
            ledger.settle()
        except CollectionError:
            assert should_be_refused(table)
            assert all(problem.file == "metadata.csv" and (problem.line or 0) >= 1 for problem in ledger.problems)
            assert all(" of metadata.csv" in message for message in described(ledger.problems))
            return
        assert not should_be_refused(table)
        counts, patients = other_reading(file, table.encoding)
    assert Counter(name.lower() for film in films for name in film.findings) == counts
    groups: dict[str, set[str]] = defaultdict(set)
    for film in films:
        groups[film.patient_id].add(film.file)
        assert split_of_patient(film.patient_id) == in_split(film.patient_id)
    assert {frozenset(group) for group in groups.values()} == patients
