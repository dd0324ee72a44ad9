"""A tree of DICOM files: what is known of a film stands in its own tags, and its findings in a table, if there is one.

`labels.csv` in the root, if it is there, has the columns `file` (a path in the tree, or a SOPInstanceUID) and `labels`.
Without it, all films count as of one kind, "Chest X-ray". Patients and films are named by hashes of their ids, so that
none stands in what is written.

Source: DICOM PS3.3, C.7.1.1 (patient), C.8.1.1 (view).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import dcmread

from trainables.datasets.collection import FilmTable
from trainables.datasets.decoding import READ_ERRORS
from trainables.datasets.dicom import is_dicom, without_values
from trainables.datasets.film_files import shown
from trainables.datasets.films import FilmTableSource
from trainables.datasets.folder import UNLABELLED
from trainables.datasets.known_fields import AGE, SEX_WORDS, frontal_view, is_lateral
from trainables.datasets.labels import FilmReader, FilmRow
from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.rows import read_rows
from trainables.datasets.rules import LabelRules

LABELS: Final = "labels.csv"
VIEWS: Final = frozenset(("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"))
"""DICOM's terms of views."""
TAGS: Final = ("SOPInstanceUID", "PatientID", "PatientAge", "PatientSex", "ViewPosition")
NO_TERM: Final = "not shown, as it is none of DICOM's"
"""In the place of an age, a sex or a view that is written as DICOM has none: messages would quote it, whatever it says."""


@dataclass(frozen=True, kw_only=True)
class DicomReader(FilmReader):
    """Reads the tags of every DICOM file under a folder."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The films in the order of their paths; with a table, those that it names."""
        table = labels / LABELS
        named = _labels(table, ledger) if table.is_file() else None
        films = list(_films(labels, ledger))
        rows = [row for path, film in films if (row := _film_row(path, film, labels, named))]
        if not rows:
            ledger.refuse("`root` must hold DICOM files that its table names", "none", "Give another folder.")
            ledger.stop()
        if len(rows) < len(films):
            ledger.say(f"{count_of(len(films) - len(rows), 'film')} that {LABELS} does not name are left out.")
        return rows


def _films(root: Path, ledger: Ledger) -> Iterator[tuple[Path, list[str]]]:
    """The files, and the texts of their `TAGS`."""
    for folder, folders, files in os.walk(root):  # follows no links out of the tree
        folders.sort()
        for path in (Path(folder) / name for name in sorted(files)):
            try:
                if is_dicom(path):
                    film = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
                    yield path, [str(film.get(tag) or "") for tag in TAGS]
            except (OSError, *READ_ERRORS) as error:
                remedy = "Restore the file, or remove it."
                ledger.refuse("`image` must be readable", without_values(error), remedy, file=shown(path, root))


def _labels(table: Path, ledger: Ledger) -> dict[str, str]:
    rows = read_rows(table, (("file",), ("labels",)), ledger, "Name its columns so.")
    return {row.values["file"]: row.values["labels"] for row in rows}


def _film_row(path: Path, tags: list[str], root: Path, named: Mapping[str, str] | None) -> FilmRow | None:
    place = shown(path, root)
    uid, patient, age, sex, view = tags
    labels = (UNLABELLED,) if named is None else named.get(place, named.get(uid))
    if labels is None:
        return None
    return FilmRow(
        file=place,
        patient_id=_hidden(patient) if patient.strip() else "",
        labels=labels,
        age=age if AGE.fullmatch(age.strip()) else age and NO_TERM,
        sex=sex if sex.casefold().strip(" .") in SEX_WORDS else sex and NO_TERM,
        view=_known_view(view.strip()),
        table=place,
        image_id=_hidden(uid or place),
    )


def _known_view(text: str) -> str:
    """A term in the place of what a view says in its own words, which may stand beside words of another kind."""
    if text in VIEWS:
        return text
    return frontal_view(text) or ("lateral" if is_lateral(text) else text and NO_TERM)


def _hidden(name: str) -> str:
    """A name that tells nothing of the one that it stands for, and is the same for the same."""
    return hashlib.sha256(f"radiograph-sweep/{name.strip()}".encode()).hexdigest()[:24]


class DicomSource(FilmTableSource):
    """The DICOM files of a folder."""

    name = "dicom"
    title = "DICOM files"
    tables = (FilmTable(pattern=".", reader=DicomReader()),)
