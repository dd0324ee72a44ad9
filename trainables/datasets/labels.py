"""Label files: one row a film, under whatever names its columns have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.datasets.known_fields import KnownFields
from trainables.datasets.problems import Ledger
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmLabels:
    """What a label file says of one film.

    Args:
        file: name of the image file, as it stands there.
        line: of the label file.
        patient_id: equal for all films of a patient.
        findings: in the project's words; none where the row was refused.
        age: years, where known.
        sex: "F" or "M", where known.
        view: "PA" or "AP", where known.
    """

    file: str
    line: int
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

    def vocabulary(self, own: Mapping[str, tuple[str, ...]]) -> Vocabulary:
        """What labels of this file mean, with a user's own names for some."""
        return Vocabulary(separator=self.separator, words=self.words, own=own)

    def read(self, labels: Path, vocabulary: Vocabulary, ledger: Ledger) -> list[FilmLabels]:
        """All rows of frontal films that can be read, in the order of the label file.

        Args:
            labels: CSV with a header.
            vocabulary: reads the findings.
            ledger: takes the rows that cannot be read, and what is said of the others.

        Raises:
            CollectionError: columns or all rows are missing, all films are lateral, or the file is no CSV file.
        """
        spellings = (self.file, self.patient_id, self.age, self.sex, self.view, self.findings)
        known = KnownFields()
        rows = self._frontal(read_rows(labels, spellings, ledger), known, ledger, labels.name)
        vocabulary.learn(_value(row, self.findings) for row in rows)
        films = [self._film(row, vocabulary, known, ledger, labels.name) for row in rows]
        vocabulary.report(ledger)
        known.report(ledger)
        return list(_named_once(films, self.file[0], labels, ledger))

    def _frontal(self, rows: list[TableRow], known: KnownFields, ledger: Ledger, file: str) -> list[TableRow]:
        frontal = [row for row in rows if known.is_frontal(_value(row, self.view))]
        for row in () if frontal else rows:
            rule = f"`{self.view[0]}` must not be lateral in every row, since only frontal films are prepared"
            remedy = "Use a table with frontal films, or mend the column."
            ledger.refuse(rule, repr(_value(row, self.view)), remedy, file=file, line=row.line)
        if not frontal:
            ledger.stop()
        return frontal

    def _film(self, row: TableRow, vocabulary: Vocabulary, known: KnownFields, ledger: Ledger, file: str) -> FilmLabels:
        def refuse(came: str, remedy: str) -> None:
            rule = f"`{self.findings[0]}` must name the findings of a film, or 'No Finding'"
            ledger.refuse(rule, came, remedy, file=file, line=row.line)

        return FilmLabels(
            file=_value(row, self.file),
            line=row.line,
            patient_id=_value(row, self.patient_id),
            findings=vocabulary.findings(_value(row, self.findings), refuse),
            age=known.age(_value(row, self.age)),
            sex=known.sex(_value(row, self.sex)),
            view=known.view(_value(row, self.view)),
        )


def _named_once(films: Iterable[FilmLabels], column: str, labels: Path, ledger: Ledger) -> Iterable[FilmLabels]:
    first: dict[str, int] = {}
    file = labels.name
    for film in films:
        path = os.path.normpath(labels.parent / film.file.replace("\\", "/"))  # ./a.png and a.png are one file
        line = first.setdefault(path, film.line)
        if not film.file:
            remedy = "Fill it in, or remove the row."
            ledger.refuse(f"`{column}` must name the film of every row", "''", remedy, file=file, line=film.line)
        elif line != film.line:
            came = f"{film.file!r} again, which is on line {line}"
            remedy = "Remove one of the rows, or join their labels in one."
            ledger.refuse(f"`{column}` must name each film once", came, remedy, file=file, line=film.line)
        else:
            yield film


def _value(row: TableRow, spellings: tuple[str, ...]) -> str:
    return next(row.values[name] for name in spellings if name in row.values)
