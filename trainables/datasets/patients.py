"""Ids of patients: refused where they name nobody, one where they are two spellings of one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from trainables.datasets.labels import FilmLabels
from trainables.datasets.problems import Ledger, count_of, listed
from trainables.datasets.rows import is_missing

ROUNDED = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
"""A number as spreadsheets shorten it; two patients may have become one."""


def known_patients(films: Sequence[FilmLabels], ledger: Ledger) -> list[FilmLabels]:
    """The films of patients that have a name, under one spelling for each patient.

    An id that comes in one spelling only is left as it is written, so that other films never move a patient to
    another split.

    Args:
        films: as the label file has them.
        ledger: takes the films without a patient, and says which spellings are one.
    """
    named = [film for film in films if _is_named(film, ledger)]
    keys = {patient_id: patient_key(patient_id) for patient_id in {film.patient_id for film in named}}
    spellings: dict[str, set[str]] = {}
    for patient_id, key in keys.items():
        spellings.setdefault(key, set()).add(patient_id)
    chosen = {key: min(forms, key=lambda form: (len(form), form)) for key, forms in spellings.items()}
    merged = [sorted(forms) for forms in spellings.values() if len(forms) > 1]
    if merged:
        examples = listed(" = ".join(map(repr, forms)) for forms in merged)
        ledger.say(
            f"Ids of {count_of(len(merged), 'patient')} come in several spellings and are read as one: {examples}."
        )
    spelt = {patient_id: chosen[key] for patient_id, key in keys.items()}
    return [
        film if spelt[film.patient_id] == film.patient_id else replace(film, patient_id=spelt[film.patient_id])
        for film in named
    ]


def patient_key(patient_id: str) -> str:
    """What is equal for all spellings of an id: padding, a decimal zero, case and white space aside."""
    folded = unicodedata.normalize("NFKC", patient_id).casefold().strip()
    folded = re.sub(r"^(\d+)\.0*$", r"\1", folded)
    folded = re.sub(r"\s+", " ", folded)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", folded)


def _is_named(film: FilmLabels, ledger: Ledger) -> bool:
    if is_missing(film.patient_id):
        rule = "`patient_id` must name the patient of every film"
        remedy = "Fill it in, or remove the rows: without it a patient may be in two splits."
    elif ROUNDED.fullmatch(film.patient_id):
        rule = "`patient_id` must be written in full"
        remedy = "Format the column as text and export it again: rounded ids may be those of several patients."
    else:
        return True
    ledger.refuse(rule, repr(film.patient_id), remedy, file=film.table, line=film.line)
    return False
