"""CheXpert: the release of full size (CheXpert-v1.0) and the small one (CheXpert-v1.0-small).

Either is a folder with `train.csv`, `valid.csv` and the JPEGs under `train/` and `valid/`; `valid.csv`, of 234 films read by
radiologists, is the release's test split. Both come from Stanford under its research agreement.

Source: Irvin et al., CheXpert, AAAI 2019.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.graded import CHEXPERT, graded_row
from trainables.datasets.labels import FilmReader, FilmRow, with_findings
from trainables.datasets.problems import Ledger
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.rules import LabelRules

ABOUT: Final = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
PATIENT: Final = re.compile(r"patient\d+")
SPLITS_OF_TABLES: Final = {"train": "train or validation", "valid": "test"}


@dataclass(frozen=True, kw_only=True)
class CheXpertReader(FilmReader):
    """Reads `train.csv`, and `valid.csv` where it is beside it."""

    has_split: ClassVar[bool] = True

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The films of both tables whose findings are known."""
        tables = [labels, *(path for path in labels.parent.glob("valid.csv*") if path != labels)]
        columns = [(name,) for name in (*ABOUT, *CHEXPERT)]
        return with_findings(
            [
                self._film_row(row, table.name, rules, ledger)
                for table in tables
                for row in read_rows(table, columns, ledger)
            ],
            ledger,
        )

    def _film_row(self, row: TableRow, table: str, rules: LabelRules, ledger: Ledger) -> FilmRow:
        path, sex, age, side, view = (row.values[name] for name in ABOUT)
        present, unknown = graded_row(row, CHEXPERT, rules, ledger, table=table)
        patient = PATIENT.search(path)
        return FilmRow(
            file=re.sub(r"^CheXpert-v[^/]*/", "", path),
            patient_id=patient[0] if patient else "",
            labels=present,
            unknown=unknown,
            age=age,
            sex=sex,
            view=view if side == "Frontal" else side,
            split=SPLITS_OF_TABLES[table.partition(".")[0]],
            table=table,
            line=row.line,
        )


class CheXpertSource(FilmTableSource):
    """Frontal films of CheXpert."""

    name = "chexpert"
    title = "CheXpert"
    tables = (FilmTable(pattern="train.csv*", reader=CheXpertReader()),)
