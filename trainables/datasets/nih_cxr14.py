"""NIH ChestX-ray14: the official release, and folders with a metadata.csv.

The official release is a folder with `Data_Entry_2017.csv` (or `Data_Entry_2017_v2020.csv`, which corrects labels of the
first one), `train_val_list.txt` and `test_list.txt` with its own split, and PNGs under `images/` or `images_001/images/` and
so on. The other layout is a `metadata.csv` with the columns file, patient_id, age, sex, view and labels beside the files that
it names.

Source: Wang et al., ChestX-ray8, CVPR 2017; nihcc.app.box.com/v/ChestXray-NIHCC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmRow, LabelColumns
from trainables.datasets.problems import Ledger
from trainables.datasets.rules import OWN, LabelRules

WORDS = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
"""The project's words, where NIH's differ from them."""
LISTS: Final = {"train_val_list.txt": "train or validation", "test_list.txt": "test"}
"""The release's own split, in which no patient is on both lists."""


@dataclass(frozen=True, kw_only=True)
class OfficialColumns(LabelColumns):
    """The release's table, with its lists of films."""

    has_split: ClassVar[bool] = True

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The rows of the table, each in the split of the list that names it, where that split is asked for."""
        splits = {name: split for list_, split in LISTS.items() for name in _names(labels.with_name(list_))}
        rows = super().rows(labels, rules, ledger)
        return [replace(row, split=splits.get(row.file, "")) for row in rows] if rules.split == OWN else rows


def _names(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split() if file.is_file() else []


FOLDER = FilmTable(
    pattern="metadata.csv",
    reader=LabelColumns(
        file=("file",),
        patient_id=("patient_id",),
        age=("age",),
        sex=("sex",),
        view=("view",),
        findings=("labels",),
        words=WORDS,
    ),
)
OFFICIAL = FilmTable(
    pattern="Data_Entry_2017*.csv",
    reader=OfficialColumns(
        file=("Image Index",),
        patient_id=("Patient ID",),
        age=("Patient Age",),
        sex=("Patient Gender", "Patient Sex", "Sex"),
        view=("View Position",),
        findings=("Finding Labels",),
        words=WORDS,
    ),
    image_folders=(".", "images", "images_*", "images_*/images"),
)


class NihCxr14Source(FilmTableSource):
    """Frontal films of NIH ChestX-ray14."""

    name = "nih_cxr14"
    title = "NIH ChestX-ray14"
    tables = (FOLDER, OFFICIAL)
