"""PadChest: 160,861 films as PNGs of 16 bits, labelled with 194 terms in English.

A folder with `PADCHEST_chest_x_ray_images_labels_160K_*.csv` (packed or not), and the PNGs in it, in `images/`, or in the
numbered folders that they come in. Films whose projection is neither frontal nor lateral are left out. The reports are in
Spanish, stemmed and without accents, and make no captions. `--range 0 65535` says what is white.

Source: Bustos et al. 2020, doi:10.1016/j.media.2020.101797; BIMCV, under its research agreement.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmReader, FilmRow, with_findings
from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.rules import LabelRules

ABOUT: Final = (
    *("ImageID", "PatientID", "PatientBirth", "StudyDate_DICOM", "PatientSex_DICOM", "Projection", "Labels"),
)
VIEWS: Final = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP", "L": "LATERAL"}
NO_LABELS: Final = ("", "unchanged", "exclude", "suboptimal study")
WORDS: Final = {
    "normal": "No Finding",
    "pulmonary edema": "Edema",
    "pulmonary fibrosis": "Fibrosis",
    "infiltrates": "Infiltration",
    "pulmonary mass": "Mass",
    "rib fracture": "Fracture",
    "callus rib fracture": "Fracture",
    "vertebral fracture": "Fracture",
    "clavicle fracture": "Fracture",
    "humeral fracture": "Fracture",
    "hiatal hernia": "Hernia",
    **dict.fromkeys(
        (
            *("pacemaker", "dual chamber device", "single chamber device", "electrical device", "NSG tube", "dai"),
            *("endotracheal tube", "tracheostomy tube", "chest drain tube", "catheter", "central venous catheter"),
            *("central venous catheter via jugular vein", "central venous catheter via subclavian vein"),
            *("central venous catheter via umbilical vein", "reservoir central venous catheter"),
        ),
        "Support Devices",
    ),
}
"""What the project calls terms of which it has a finding; other terms keep their names."""


@dataclass(frozen=True, kw_only=True)
class PadChestReader(FilmReader):
    """Reads the table of labels."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The frontal and lateral films whose findings are known."""
        rows = read_rows(labels, [(name,) for name in ABOUT], ledger)
        shown = [row for row in rows if row.values["Projection"] in VIEWS]
        if len(shown) < len(rows):
            ledger.say(
                f"{count_of(len(rows) - len(shown), 'film')} of a projection other than {', '.join(VIEWS)} are left out."
            )
        return with_findings((_film_row(row, labels.name) for row in shown), ledger)


def _film_row(row: TableRow, table: str) -> FilmRow:
    film, patient, birth, date, sex, projection, labels = (row.values[name] for name in ABOUT)
    born, taken = birth.partition(".")[0], date[:4]
    return FilmRow(
        file=film,
        patient_id=patient,
        labels=_findings(labels),
        age=str(int(taken) - int(born)) if born.isdigit() and taken.isdigit() else "",
        sex=sex,
        view=VIEWS[projection],
        table=table,
        line=row.line,
    )


@lru_cache(maxsize=2**14)
def _findings(cell: str) -> tuple[str, ...]:
    """The terms of a list as Python writes it; "normal" beside others says nothing."""
    try:
        listed = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return ()
    terms = dict.fromkeys(str(term).strip() for term in listed if isinstance(listed, list))
    findings = dict.fromkeys(WORDS.get(term, term) for term in terms if term not in NO_LABELS)
    others = {"No Finding", "Support Devices"}.issuperset(findings)
    return tuple(name for name in findings if others or name != "No Finding")


class PadChestSource(FilmTableSource):
    """Frontal films of PadChest."""

    name = "padchest"
    title = "PadChest"
    tables = (
        FilmTable(
            pattern="PADCHEST_chest_x_ray_images_labels_160K*.csv*",
            reader=PadChestReader(),
            image_folders=(".", "images", "[0-9]", "[0-9][0-9]"),
        ),
    )
