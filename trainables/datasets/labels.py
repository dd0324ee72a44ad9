"""Labels of films: one row a film, from whatever tables, reports and folders a collection has them in."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from trainables.datasets.known_fields import KnownFields
from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.rules import AS_THEY_ARE, LabelRules
from trainables.datasets.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmRow:
    """What a collection says of one film, before any of it is understood.

    Attributes:
        file: name of the image file, or its path in the collection.
        patient_id: equal for all films of a patient.
        labels: a cell with findings in whatever spelling, or findings that the collection has by its own rules.
        unknown: findings that the collection leaves open.
        age, sex, view: as they are written.
        text: free text of the film, where it has one.
        split: that the collection, or the user's column, puts it in.
        table: that says so, as messages name it.
        line: of the table, where it has lines.
        image_id: the film's name, where that of its file is not to be told.
    """

    file: str
    patient_id: str
    labels: str | tuple[str, ...]
    unknown: tuple[str, ...] = ()
    age: str = ""
    sex: str = ""
    view: str = ""
    text: str = ""
    split: str = ""
    table: str = ""
    line: int | None = None
    image_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmLabels:
    """What a collection says of one film.

    Attributes:
        file: name of the image file, as it stands there.
        table, line: name of the file that says all this, and the line in it.
        patient_id: equal for all films of a patient.
        findings: in the project's words; none where the row was refused.
        unknown: findings that may be there or not.
        age: in years, where known.
        sex: "F" or "M", where known.
        view: "PA" or "AP", where known.
        text: free text of the film; empty where there is none.
        split: the split that it is said to be in; empty where nothing is said.
        image_id: the film's name; empty where that of its file will do.
    """

    file: str
    table: str
    line: int | None
    patient_id: str
    findings: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    age: int | None
    sex: str | None
    view: str | None
    text: str = ""
    split: str = ""
    image_id: str = ""


@dataclass(frozen=True, kw_only=True)
class FilmReader(ABC):
    """Reads the labels of one layout of a collection.

    Attributes:
        separator: between the findings of a cell.
        words: what the project calls a finding, where the collection calls it otherwise.
    """

    separator: str = "|"
    words: Mapping[str, str] = field(default_factory=dict)
    has_split: ClassVar[bool] = False
    """Whether the collection comes with a split of its own."""
    has_columns: ClassVar[bool] = False
    """Whether a user may name the column of its table that has the split."""

    @abstractmethod
    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """All films that the collection has labels of, in its order.

        Args:
            labels: its label file, or folder.
            rules: what the user said.
            ledger: takes what cannot be read, and what is said of the rest.

        Raises:
            CollectionError: nothing of it can be read.
        """

    @property
    def names(self) -> tuple[str, str, str]:
        """What messages call the film's file, its view and its findings."""
        return "file", "view", "labels"

    def vocabulary(self, label_map: Mapping[str, tuple[str, ...]]) -> Vocabulary:
        """What labels of this collection mean, with a user's own names for some."""
        return Vocabulary(separator=self.separator, words=self.words, label_map=label_map)

    def read(
        self, labels: Path, vocabulary: Vocabulary, ledger: Ledger, rules: LabelRules = AS_THEY_ARE
    ) -> list[FilmLabels]:
        """All films that are frontal and can be read, in the collection's order.

        Args:
            labels: its label file, or folder.
            vocabulary: reads the findings.
            ledger: takes the rows that cannot be read, and what is said of the others.
            rules: what the user said of labels and split.

        Raises:
            CollectionError: columns or all rows are missing, all films are lateral, or the file is no CSV file.
        """
        known = KnownFields()
        rows = self._frontal(self.rows(labels, rules, ledger), known, ledger)
        vocabulary.learn(row.labels for row in rows if isinstance(row.labels, str))
        films = [self._film(row, vocabulary, known, ledger) for row in rows]
        vocabulary.report(ledger)
        known.report(ledger)
        return list(_named_once(films, self.names[0], labels.parent, ledger))

    def _frontal(self, rows: list[FilmRow], known: KnownFields, ledger: Ledger) -> list[FilmRow]:
        frontal = [row for row in rows if known.is_frontal(row.view)]
        for row in () if frontal else rows:
            rule = f"`{self.names[1]}` must not be lateral in every row, since only frontal films are prepared"
            remedy = "Use a table with frontal films, or mend the column."
            ledger.refuse(rule, repr(row.view), remedy, file=row.table, line=row.line)
        if not frontal:
            ledger.stop()
        return frontal

    def _film(self, row: FilmRow, vocabulary: Vocabulary, known: KnownFields, ledger: Ledger) -> FilmLabels:
        def refuse(came: str, remedy: str) -> None:
            rule = f"`{self.names[2]}` must name the findings of a film, or 'No Finding'"
            ledger.refuse(rule, came, remedy, file=row.table, line=row.line)

        return FilmLabels(
            file=row.file,
            table=row.table,
            line=row.line,
            patient_id=row.patient_id,
            findings=vocabulary.findings(row.labels, refuse)
            if isinstance(row.labels, str)
            else vocabulary.of_collection(row.labels, refuse),
            unknown=vocabulary.named(row.unknown),
            age=known.age(row.age),
            sex=known.sex(row.sex),
            view=known.view(row.view),
            text=row.text,
            split=row.split,
            image_id=row.image_id,
        )


@dataclass(frozen=True, kw_only=True)
class LabelColumns(FilmReader):
    """A table with one column for all findings of a film; columns may have several spellings, of which it has one.

    Attributes:
        file, patient_id, age, sex, view, findings, text, split: spellings of the column that holds it.
        optional: those of these names that a table may lack.
    """

    file: tuple[str, ...]
    patient_id: tuple[str, ...]
    age: tuple[str, ...]
    sex: tuple[str, ...]
    view: tuple[str, ...]
    findings: tuple[str, ...]
    text: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset(("text", "split"))

    has_columns: ClassVar[bool] = True
    FIELDS: ClassVar = ("file", "patient_id", "age", "sex", "view", "findings", "text", "split")

    @property
    def names(self) -> tuple[str, str, str]:
        """What messages call the film's file, its view and its findings: by the first spellings."""
        return self.file[0], self.view[0], self.findings[0]

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The rows of the table."""
        spellings, optional = self.spellings(rules), self.optional_in(rules)
        needed = [names for name, names in spellings.items() if name not in optional]
        may = [names for name, names in spellings.items() if name in optional]
        return [self.film_row(row, spellings, labels.name) for row in read_rows(labels, needed, ledger, optional=may)]

    def optional_in(self, rules: LabelRules) -> frozenset[str]:
        """The names of the columns that a table may lack; not that of a split that the user named."""
        return self.optional - {"split"} if rules.split_column else self.optional

    def spellings(self, rules: LabelRules) -> dict[str, tuple[str, ...]]:
        """The spellings of each column, with the user's own of the split."""
        overrides: dict[str, tuple[str, ...]] = {"split": (rules.split_column,)} if rules.split_column else {}
        return {name: overrides.get(name, getattr(self, name)) for name in self.FIELDS}

    def film_row(self, row: TableRow, spellings: Mapping[str, tuple[str, ...]], table: str) -> FilmRow:
        """A row of the table by the names that its columns have.

        Args:
            row: of the table.
            spellings: names that a column may have, by our name of it.
            table: the table's name, for messages.
        """

        def value(name: str) -> str:
            for column in spellings[name]:
                if column in row.values:
                    return row.values[column]
            return ""

        return FilmRow(
            file=value("file"),
            patient_id=value("patient_id"),
            labels=value("findings"),
            age=value("age"),
            sex=value("sex"),
            view=value("view"),
            text=value("text"),
            split=value("split"),
            table=table,
            line=row.line,
        )


def with_findings(rows: Iterable[FilmRow], ledger: Ledger) -> list[FilmRow]:
    """The films of which any finding is known to be present; the others are counted and left out."""
    rows = list(rows)
    kept = [row for row in rows if row.labels]
    if len(kept) < len(rows):
        without = count_of(len(rows) - len(kept), "film")
        ledger.say(f"No finding is known to be present on {without}, nor that there is none; they are left out.")
    return kept


def _named_once(films: Iterable[FilmLabels], column: str, folder: Path, ledger: Ledger) -> Iterable[FilmLabels]:
    first: dict[str, FilmLabels] = {}
    root = os.fspath(folder)
    for film in films:
        # ./a.png and a.png are one file. Not by pathlib, which takes twice as long, of many films.
        path = os.path.normpath(os.path.join(root, film.file.replace("\\", "/")))  # noqa: PTH118
        before = first.setdefault(path, film)
        if not film.file:
            remedy = "Fill it in, or remove the row."
            ledger.refuse(f"`{column}` must name the film of every row", "''", remedy, file=film.table, line=film.line)
        elif before is not film:
            came = f"{film.file!r} again, which is on line {before.line}"
            remedy = "Remove one of the rows, or join their labels in one."
            ledger.refuse(f"`{column}` must name each film once", came, remedy, file=film.table, line=film.line)
        else:
            yield film
