"""NIH ChestX-ray14: the official release, and folders with a metadata.csv.

The official release is a folder with `Data_Entry_2017.csv` (or `Data_Entry_2017_v2020.csv`, which corrects labels of the
first one) and PNGs under `images/` or `images_001/images/` and so on. The other layout is a `metadata.csv` with the
columns file, patient_id, age, sex, view and labels beside the files that it names.

Source: Wang et al., ChestX-ray8, CVPR 2017; nihcc.app.box.com/v/ChestXray-NIHCC.
"""

from __future__ import annotations

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import LabelColumns

WORDS = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
"""Where the project's words differ from NIH's."""
FOLDER = FilmTable(
    pattern="metadata.csv",
    columns=LabelColumns(
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
    columns=LabelColumns(
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
