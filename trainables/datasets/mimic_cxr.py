"""MIMIC-CXR-JPG, with the reports of MIMIC-CXR where they are beside it.

A folder with `mimic-cxr-2.*-metadata.csv`, `-split.csv` and `-chexpert.csv` or `-negbio.csv` (packed or not), the JPEGs as
`files/p10/p10000032/s50414267/*.jpg`, and, for captions of their own text, the reports as `files/p10/p10000032/s50414267.txt`.
Both come from PhysioNet under its agreement for credentialed users. Ages and sexes are not among the tables.

Source: Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from trainables.datasets.collection import FilmTable
from trainables.datasets.files import Inside
from trainables.datasets.films import FilmTableSource
from trainables.datasets.graded import CHEXPERT, Graded, graded_row
from trainables.datasets.labels import FilmReader, FilmRow, with_findings
from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.reports import section_of
from trainables.datasets.rows import TableRow, read_rows
from trainables.datasets.rules import LabelRules

KEYS: Final = (("dicom_id",), ("subject_id",), ("study_id",))


@dataclass(frozen=True, kw_only=True)
class MimicReader(FilmReader):
    """Joins the tables of films, splits and labels, and reads the reports."""

    has_split: ClassVar[bool] = True

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The films whose findings are known."""
        graded = _labels(labels, rules, ledger)
        split_table = _beside(labels, "split")
        splits = {
            row.values["dicom_id"]: row.values["split"] for row in read_rows(split_table, (*KEYS, ("split",)), ledger)
        }
        films = read_rows(labels, (*KEYS, ("ViewPosition",)), ledger)
        labelled = [row for row in films if row.values["study_id"] in graded]
        if len(labelled) < len(films):
            ledger.say(f"{count_of(len(films) - len(labelled), 'film')} of studies without labels are left out.")
        texts = {study: text for study, text in _texts(labels.parent, labelled, rules).items() if text}
        return with_findings((_film_row(row, graded, splits, texts, table=labels.name) for row in labelled), ledger)


def _film_row(
    row: TableRow, graded: Mapping[str, Graded], splits: Mapping[str, str], texts: Mapping[str, str], *, table: str
) -> FilmRow:
    film, subject, study = (row.values[key] for (key,) in KEYS)
    present, unknown = graded[study]
    return FilmRow(
        file=f"{_folder(subject, study)}/{film}.jpg",
        patient_id=subject,
        labels=present,
        unknown=unknown,
        view=row.values["ViewPosition"],
        text=texts.get(study, ""),
        split=splits.get(film, ""),
        table=table,
        line=row.line,
        image_id=film,
    )


def _labels(metadata: Path, rules: LabelRules, ledger: Ledger) -> dict[str, Graded]:
    table = _beside(metadata, rules.labeler)
    columns = (("subject_id",), ("study_id",), *((name,) for name in CHEXPERT))
    rows = read_rows(table, columns, ledger)
    return {row.values["study_id"]: graded_row(row, CHEXPERT, rules, ledger, table=table.name) for row in rows}


def _texts(root: Path, rows: list[TableRow], rules: LabelRules) -> dict[str, str]:
    """The section that is asked for of each study's report, where there are reports and captions are such."""
    if not rules.own_text:
        return {}
    studies = {row.values["study_id"]: _folder(row.values["subject_id"], row.values["study_id"]) for row in rows}
    inside = Inside(root)
    reports = {study: root / f"{folder}.txt" for study, folder in studies.items()}
    return {
        study: section_of(report.read_text(encoding="utf-8", errors="replace"), rules.section)
        for study, report in reports.items()
        if report.is_file() and not inside.leads_out(report)
    }


def _folder(subject: str, study: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study}"


def _beside(metadata: Path, kind: str) -> Path:
    """The table of another kind of the same release."""
    pattern = f"{metadata.name.partition('-metadata')[0]}-{kind}.csv*"
    table = max(metadata.parent.glob(pattern), default=None)
    if table is None:
        raise FileNotFoundError(
            f"`root` must hold {pattern} beside {metadata.name}, but got {metadata.parent} with none. Put it there, or "
            "choose other labels with --labeler."
        )
    return table


class MimicCxrSource(FilmTableSource):
    """Frontal films of MIMIC-CXR-JPG."""

    name = "mimic_cxr"
    title = "MIMIC-CXR-JPG"
    tables = (FilmTable(pattern="mimic-cxr-2.*-metadata.csv*", reader=MimicReader()),)
