"""The tuberculosis films of Montgomery County: 138 frontal films, each with a reading of a few lines.

A folder with `ClinicalReadings/MCUCXR_0001_0.txt` and `CXR_png/MCUCXR_0001_0.png`, and so on: 80 normal, 58 not. Each film
is of another patient.

Source: Jaeger et al. 2014, doi:10.3978/j.issn.2223-4292.2014.11.20; National Library of Medicine, no restrictions on use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmReader, FilmRow
from trainables.datasets.problems import Ledger
from trainables.datasets.reports import clean_text
from trainables.datasets.rules import LabelRules

FIELD: Final = re.compile(r"^\s*Patient'?s? (Sex|Age):\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
BY_LAST_DIGIT: Final = {"0": "No Finding", "1": "Tuberculosis"}
"""A film's name ends with 1 where there are signs of tuberculosis."""


@dataclass(frozen=True, kw_only=True)
class ReadingsReader(FilmReader):
    """Reads the text file of each film."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """One film for each reading."""
        readings = sorted(labels.glob("*.txt"))
        if not readings:
            ledger.refuse("`ClinicalReadings` must hold text files", "none", "Use the whole folder.")
            ledger.stop()
        return [_film_row(reading, labels.name) for reading in readings]


def _film_row(reading: Path, folder: str) -> FilmRow:
    text = reading.read_text(encoding="utf-8", errors="replace").replace("\ufeff", "")
    fields = {name.casefold(): value for name, value in FIELD.findall(text)}
    said = clean_text(FIELD.sub("", text))
    label = BY_LAST_DIGIT.get(reading.stem[-1])
    return FilmRow(
        file=f"{reading.stem}.png",
        patient_id=reading.stem,
        labels=(label,) if label else "",
        age=fields.get("age", ""),
        sex=fields.get("sex", ""),
        view="PA",
        text=", ".join(part for part in (fields.get("sex", ""), fields.get("age", ""), said) if part),
        table=f"{folder}/{reading.name}",
    )


class MontgomerySource(FilmTableSource):
    """The films of Montgomery County."""

    name = "montgomery"
    title = "the Montgomery County films"
    tables = (FilmTable(pattern="ClinicalReadings", reader=ReadingsReader(), image_folders=("CXR_png", ".")),)
