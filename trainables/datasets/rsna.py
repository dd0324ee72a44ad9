"""The films of the RSNA Pneumonia Detection Challenge, as DICOM: 26,684 of ChestX-ray14's, read anew by radiologists.

A folder with `stage_2_train_labels.csv` (packed or not), a row a box, and `stage_2_train_images/ID.dcm`; and, where it is
there, `stage_2_detailed_class_info.csv`, which tells normal films from those with another abnormality. Age, sex and view are
read from `stage_2_train_images_dicom_headers.csv` where that is there. The release names films, not patients: films of one
patient may be in two splits.

Source: Shih et al. 2019, doi:10.1148/ryai.2019180041.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmReader, FilmRow
from trainables.datasets.problems import Ledger
from trainables.datasets.rows import read_rows
from trainables.datasets.rules import LabelRules

OPACITY: Final = "Lung Opacity"
NO_OPACITY: Final = "No Lung Opacity"
CLASSES: Final = {
    "Normal": "No Finding",
    "Lung Opacity": OPACITY,
    "No Lung Opacity / Not Normal": "Other Abnormality",
}
HEADERS: Final = ("PatientAge", "PatientSex", "ViewPosition")
NO_PATIENTS: Final = "The release names films, not patients: films of one patient of ChestX-ray14 may be in two splits."


@dataclass(frozen=True, kw_only=True)
class RsnaReader(FilmReader):
    """Reads the boxes, and the tables of classes and headers where they are there."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """One film for all its boxes."""
        ledger.say(NO_PATIENTS)
        classes = _beside(labels, "*detailed_class_info.csv*", ("class",), ledger)
        headers = _beside(labels, "*dicom_headers.csv*", HEADERS, ledger)
        rows = {row.values["patientId"]: row for row in read_rows(labels, (("patientId",), ("Target",)), ledger)}
        return [
            FilmRow(
                file=f"stage_2_train_images/{film}.dcm",
                patient_id=film,
                labels=_findings(row.values["Target"], classes.get(film, {}).get("class")),
                age=headers.get(film, {}).get("PatientAge", ""),
                sex=headers.get(film, {}).get("PatientSex", ""),
                view=headers.get(film, {}).get("ViewPosition", ""),
                table=labels.name,
                line=row.line,
            )
            for film, row in rows.items()
        ]


def _findings(target: str, kind: str | None) -> str | tuple[str, ...]:
    """The class where it is known; otherwise whether there is an opacity, which does not say that all else is normal."""
    if kind is not None:
        return (CLASSES.get(kind, kind),)
    return {"1": (OPACITY,), "0": (NO_OPACITY,)}.get(target, target)


def _beside(labels: Path, pattern: str, columns: tuple[str, ...], ledger: Ledger) -> dict[str, Mapping[str, str]]:
    """Another table's values by film; none where it is not there."""
    table = max(labels.parent.glob(pattern), default=None)
    if table is None:
        return {}
    rows = read_rows(table, (("patientId", "PatientID"), *((name,) for name in columns)), ledger)
    return {row.values.get("patientId") or row.values["PatientID"]: row.values for row in rows}


class RsnaSource(FilmTableSource):
    """Frontal films of the RSNA Pneumonia Detection Challenge."""

    name = "rsna"
    title = "the RSNA Pneumonia Detection Challenge"
    tables = (
        *(
            FilmTable(pattern=f"{stage}train_labels.csv*", reader=RsnaReader())
            for stage in ("stage_2_", "kaggle_stage_2_")
        ),
    )
