"""Label files: one row a film, under whatever names its columns have."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.datasets.base import SEXES, VIEWS

Row = Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmLabels:
    """What a label file says of one film.

    Args:
        file: name of the image file, as it stands there.
        patient_id: equal for all films of a patient.
        findings: in the project's words, at least one.
        age: years, where known.
        sex: "F" or "M", where known.
        view: "PA" or "AP", where known.
    """

    file: str
    patient_id: str
    findings: tuple[str, ...]
    age: int | None
    sex: str | None
    view: str | None


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """How the columns of a label file are called; each may have several spellings, of which the file has one.

    Args:
        file, patient_id, age, sex, view, findings: spellings of the column that holds it.
        separator: between the findings of a film.
        words: what the project calls a finding, where the file calls it otherwise.
    """

    file: tuple[str, ...]
    patient_id: tuple[str, ...]
    age: tuple[str, ...]
    sex: tuple[str, ...]
    view: tuple[str, ...]
    findings: tuple[str, ...]
    separator: str = "|"
    words: Mapping[str, str] = field(default_factory=dict)

    def read(self, labels: Path) -> list[FilmLabels]:
        """All rows of a label file (CSV with a header, UTF-8), in its order.

        Raises:
            ValueError: a column or all rows are missing, or a row names no finding.
        """
        return [self._labels(row) for row in self._rows(labels)]

    def _rows(self, labels: Path) -> list[dict[str, str | None]]:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            self._require_columns(labels, set(reader.fieldnames or ()))
            rows = list(reader)
        if not rows:
            raise ValueError(
                f"`{labels.name}` must have at least one row, but got none in {labels}. Use the whole file."
            )
        return rows

    def _require_columns(self, labels: Path, header: set[str]) -> None:
        spelled = (self.file, self.patient_id, self.age, self.sex, self.view, self.findings)
        missing = [names[0] for names in spelled if not header & set(names)]
        if missing:
            raise ValueError(
                f"`{labels.name}` must have the columns {', '.join(names[0] for names in spelled)}, "
                f"but got no {', '.join(missing)}. Use the label file as it was released."
            )

    def _labels(self, row: Row) -> FilmLabels:
        file, sex, view = _value(row, self.file), _value(row, self.sex), _value(row, self.view)
        return FilmLabels(
            file=file,
            patient_id=_value(row, self.patient_id).strip(),
            findings=self._findings(_value(row, self.findings), file),
            age=_age(_value(row, self.age)),
            sex=sex if sex in SEXES else None,
            view=view if view in VIEWS else None,
        )

    def _findings(self, text: str, file: str) -> tuple[str, ...]:
        found = [label.strip() for label in text.split(self.separator) if label.strip()]
        if not found:
            raise ValueError(
                f"`{self.findings[0]}` must name a finding or 'No Finding', but got none for {file}. Remove the row."
            )
        return tuple(self.words.get(label, label) for label in found)


def _value(row: Row, spellings: tuple[str, ...]) -> str:
    return next((value for name in spellings if (value := row.get(name))), "")


def _age(text: str) -> int | None:
    """Years; some write 058Y, and months and days for infants."""
    digits, unit = text.strip().rstrip("YMD"), text.strip()[-1:]
    if not digits.isdigit():
        return None
    return 0 if unit in ("M", "D") else int(digits)
