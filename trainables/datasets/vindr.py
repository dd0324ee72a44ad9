"""VinDr-CXR: 18,000 frontal films as DICOM, as PhysioNet has them, and the 15,000 of the Kaggle challenge.

PhysioNet's release is a folder with `annotations/image_labels_train.csv` and `image_labels_test.csv`, and the films as
`train/ID.dicom` and `test/ID.dicom`; three radiologists read each training film, and what two of them say holds. Kaggle's is
a folder with `train.csv`, a row a box, and `train/ID.dicom` or `.png`. Patients are not named in either: each film is taken
for one of its own, so that films of one patient may be in two splits.

Source: Nguyen et al. 2022, doi:10.1038/s41597-022-01498-w.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmReader, FilmRow, with_findings
from trainables.datasets.problems import Ledger
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.rules import LabelRules

FINDINGS: Final = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
    *("Other disease", "Other diseases", "No finding"),
)
WORDS: Final = {
    "Clavicle fracture": "Fracture",
    "Rib fracture": "Fracture",
    "Pulmonary fibrosis": "Fibrosis",
    "Other diseases": "Other disease",
}
NO_PATIENTS: Final = (
    "Patients are not named: films of one patient may be in two splits, unless the same picture shows it."
)
MAJORITY: Final = 2 / 3
ENDINGS: Final = (".dicom", ".dcm", ".png", ".jpg")


@dataclass(frozen=True, kw_only=True)
class VinDrReader(FilmReader):
    """Reads PhysioNet's tables: a column a finding, a row a film and reader."""

    has_split: ClassVar[bool] = True

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The films of training and test."""
        ledger.say(NO_PATIENTS)
        film_rows = []
        for folder, split in (("train", "train or validation"), ("test", "test")):
            table = labels.with_name(labels.name.replace("train", folder))
            if table.is_file():
                marks = _by_film(read_rows(table, [("image_id",)], ledger, optional=[(name,) for name in FINDINGS]))
                film_rows += [
                    _film_row(rows[0], _marked(rows), labels.parent.parent / folder, table=table.name, split=split)
                    for rows in marks
                ]
        return with_findings(film_rows, ledger)


@dataclass(frozen=True, kw_only=True)
class KaggleReader(FilmReader):
    """Reads Kaggle's table: a row a box and reader."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The films of the table."""
        ledger.say(NO_PATIENTS)
        films = _by_film(read_rows(labels, [("image_id",), ("class_name",), ("rad_id",)], ledger))
        return with_findings(
            (_film_row(rows[0], _boxed(rows), labels.parent / "train", table=labels.name, split="") for rows in films),
            ledger,
        )


def _by_film(rows: Iterable[TableRow]) -> list[list[TableRow]]:
    films: dict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        films[row.values["image_id"]].append(row)
    return list(films.values())


def _marked(rows: list[TableRow]) -> list[str]:
    """The findings that two of three readers, or the one consensus, marked."""
    marks = Counter(name for row in rows for name in FINDINGS if row.values.get(name) in ("1", "1.0"))
    return [name for name in FINDINGS if marks[name] >= MAJORITY * len(rows)]


def _boxed(rows: list[TableRow]) -> list[str]:
    """The findings that two of three readers drew a box around."""
    readers = {row.values["rad_id"] for row in rows}
    marks = Counter(name for name, _ in {(row.values["class_name"], row.values["rad_id"]) for row in rows})
    return [name for name in sorted(marks) if marks[name] >= MAJORITY * len(readers)]


def _film_row(row: TableRow, findings: list[str], folder: Path, *, table: str, split: str) -> FilmRow:
    film = row.values["image_id"]
    named = dict.fromkeys(WORDS.get(name, name) for name in findings)
    endings = (ending for ending in ENDINGS if (folder / f"{film}{ending}").is_file())
    return FilmRow(
        file=f"{folder.name}/{film}{next(endings, ENDINGS[0])}",
        patient_id=film,
        labels=tuple(name for name in named if name != "No finding" or len(named) == 1),
        view="PA",
        split=split,
        table=table,
        line=row.line,
    )


class VinDrSource(FilmTableSource):
    """Frontal films of VinDr-CXR."""

    name = "vindr"
    title = "VinDr-CXR"
    tables = (
        FilmTable(pattern="annotations/image_labels_train.csv", reader=VinDrReader()),
        FilmTable(pattern="train.csv", reader=KaggleReader()),
    )
