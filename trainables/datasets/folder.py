"""Any folder of films with a table, by the convention of Hugging Face's imagefolder.

`metadata.csv`, `metadata.jsonl` or `metadata.parquet` has a row a film: its file (`file_name` or `file`), the patient
(`patient_id`), the findings (`labels`, separated by `|`, or a list), or a text (`text`), or both; and, if it has them, `age`,
`sex`, `view` and `split`. Films of which only a text is known count as films of one kind, "Chest X-ray". A data set that the
library `datasets` saved to disk, or that lies there as the hub has it, is read as well: `hub_folder.py`.

Source: huggingface.co/docs/datasets/image_dataset (imagefolder).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.film_files import FilmFile
from trainables.datasets.films import FilmTableSource
from trainables.datasets.hub_folder import DICTIONARY, STATE, packed_films, read_hub_rows
from trainables.datasets.hub_snapshot import README, is_snapshot
from trainables.datasets.labels import FilmRow, LabelColumns
from trainables.datasets.packed_rows import parquet_rows
from trainables.datasets.problems import Ledger, listed
from trainables.datasets.reports import clean_text
from trainables.datasets.rows import RELEASED, TableRow, read_rows
from trainables.datasets.rules import HASH, LabelRules

UNLABELLED: Final = "Chest X-ray"
"""What films of which only a text is known are evaluated as."""


@dataclass(frozen=True, kw_only=True)
class FolderColumns(LabelColumns):
    """The columns of a user's own table, in any of three formats."""

    has_split: ClassVar[bool] = True

    def optional_in(self, rules: LabelRules) -> frozenset[str]:
        """The names of the columns that a table may lack; not that of the split, if it is not the hash's."""
        return self.optional if rules.split == HASH else self.optional - {"split"}

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The rows of the table, with texts in one line."""
        spellings, optional = self.spellings(rules), self.optional_in(rules)
        needed = [names for name, names in spellings.items() if name not in optional]
        may = [names for name, names in spellings.items() if name in optional]
        rows = [self.film_row(row, spellings, labels.name) for row in read_any(labels, needed, may, ledger)]
        if not any(row.labels or row.text for row in rows):
            rule = f"`{labels.name}` must have a column of labels or of texts"
            ledger.refuse(rule, "neither", "Add `labels` or `text`.", file=labels.name)
            ledger.stop()
        labelled = any(row.labels for row in rows)
        if not labelled:
            rows = [replace(row, labels=(UNLABELLED,)) for row in rows]
        return [replace(row, text=clean_text(row.text)) if row.text else row for row in rows]


def read_any(
    table: Path, needed: Sequence[Sequence[str]], optional: Sequence[Sequence[str]], ledger: Ledger
) -> list[TableRow]:
    """The rows of a table of CSV, JSON lines or Parquet, with all values as texts.

    Args:
        table: the file.
        needed: spellings of each column that must be there.
        optional: spellings of each column that may be there.
        ledger: takes problems.

    Raises:
        CollectionError: it cannot be read, lacks a column, or has no rows.
    """
    readers = {".jsonl": _json_rows, ".parquet": _parquet, ".json": read_hub_rows, ".md": read_hub_rows}
    if table.suffix not in readers:
        return read_rows(table, needed, ledger, optional=optional)
    table_rows = readers[table.suffix](table, ledger)
    columns = {name for row in table_rows for name in row.values}
    missing = [names[0] for names in needed if not columns & set(names)]
    if missing or not table_rows:
        rule = f"`{table.name}` must have rows with {', '.join(names[0] for names in needed)}"
        came = (
            f"no {', '.join(missing)} among {listed(map(repr, sorted(columns))) or 'none'}" if table_rows else "no row"
        )
        ledger.refuse(rule, came, RELEASED, file=table.name)
        ledger.stop()
    return [_filled(row, needed) for row in table_rows]


def _filled(row: TableRow, needed: Sequence[Sequence[str]]) -> TableRow:
    """A row that has each column that it must have, empty where it left it out."""
    empty = {names[0]: "" for names in needed if not set(names) & set(row.values)}
    return TableRow(row.line, {**row.values, **empty})


def _json_rows(table: Path, ledger: Ledger) -> list[TableRow]:
    rows: list[TableRow] = []
    for line, text in enumerate(table.read_bytes().decode("utf-8-sig", errors="replace").splitlines(), start=1):
        try:
            row = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError as error:
            row = f"{error}"
        if not isinstance(row, dict):
            rule = f"`{table.name}` must have a JSON object on every line"
            ledger.refuse(rule, str(row)[:60], "Mend the line.", file=table.name, line=line)
        elif row:
            rows.append(_row(line, row))
    return rows


def _parquet(table: Path, ledger: Ledger) -> list[TableRow]:
    try:
        return [_row(line, row) for line, row in enumerate(parquet_rows(table), start=1)]
    except ValueError as error:
        ledger.refuse(f"`{table.name}` must be Parquet", str(error), "Write it anew.", file=table.name)
        ledger.stop()
        raise  # not reached: there is a problem


def _row(line: int, values: Mapping[str, Any]) -> TableRow:
    return TableRow(line, {name: _text(value) for name, value in values.items()})


def _text(value: object) -> str:
    if value is None or value != value:  # a number that is none
        return ""
    if isinstance(value, list | tuple):
        return "|".join(map(_text, value))
    return str(value).strip()


COLUMNS: Final = FolderColumns(
    file=("file_name", "file"),
    patient_id=("patient_id", "patient"),
    age=("age",),
    sex=("sex", "gender"),
    view=("view",),
    findings=("labels", "label", "findings"),
    text=("text", "caption", "report"),
    split=("split",),
    optional=frozenset(("age", "sex", "view", "findings", "text", "split")),
)


class HubTable(FilmTable):
    """A data set of Hugging Face's `datasets`, whose films lie in its files."""

    def paths(self, root: Path) -> Mapping[str, Sequence[FilmFile]]:
        """The films by the names that its rows have for them."""
        return packed_films(root / self.pattern)


class SnapshotTable(HubTable):
    """A data set as the hub has it, whose films lie in Parquet files."""

    def label_file(self, root: Path) -> Path | None:
        """Its `README.md`, where there are Parquet files as well."""
        return root / README if is_snapshot(root) else None


class FolderSource(FilmTableSource):
    """The films of a user's own folder."""

    name = "folder"
    title = "films with a metadata table"
    tables = (
        *(FilmTable(pattern=f"metadata.{ending}", reader=COLUMNS) for ending in ("csv", "jsonl", "parquet")),
        *(HubTable(pattern=marker, reader=COLUMNS) for marker in (DICTIONARY, STATE)),
        SnapshotTable(pattern=README, reader=COLUMNS),
    )
