"""The Indiana University chest X-rays of Open-I: reports as XML, films as PNG.

A folder with `ecgen-radiology/*.xml` or `NLMCXR_reports.tgz`, and the PNGs beside them, in `NLMCXR_png/` or in `images/`. Each
report is of another patient. The reports do not say which film is frontal: the table of views that torchxrayvision carries
does, made by looking at the films; those that it does not list are left out.

Source: Demner-Fushman et al. 2015, doi:10.1093/jamia/ocv080; openi.nlm.nih.gov (CC BY-NC-ND 4.0).
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from trainables.datasets.collection import FilmTable
from trainables.datasets.films import FilmTableSource
from trainables.datasets.labels import FilmReader, FilmRow, with_findings
from trainables.datasets.problems import Ledger, count_of
from trainables.datasets.reports import clean_text
from trainables.datasets.rows import read_rows
from trainables.datasets.rules import LabelRules

VIEWS: Final = "nlmcxr_tsne_pa.csv.gz"
WORDS: Final = {
    "normal": "No Finding",
    "Opacity": "Lung Opacity",
    "Pulmonary Atelectasis": "Atelectasis",
    "Pulmonary Edema": "Edema",
    "Pulmonary Emphysema": "Emphysema",
    "Pulmonary Fibrosis": "Fibrosis",
    "Infiltrate": "Infiltration",
    "Fractures, Bone": "Fracture",
    "Hernia, Hiatal": "Hernia",
    **dict.fromkeys(
        ("Catheters, Indwelling", "Implanted Medical Device", "Medical Device", "Tube, Inserted", "Stents"),
        "Support Devices",
    ),
}
"""What the project calls the headings by which the reports were indexed."""
NO_LABELS: Final = ("No Indexing", "Technical Quality of Image Unsatisfactory")


@dataclass(frozen=True, kw_only=True)
class IndianaReader(FilmReader):
    """Reads the reports with their headings, and from another table which film is frontal."""

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        """The frontal and lateral films of all reports."""
        views = _views(ledger)
        rows = [row for name, report in _reports(labels, ledger) for row in _film_rows(name, report, views, rules)]
        seen = [row for row in rows if row.view]
        if len(seen) < len(rows):
            ledger.say(f"{count_of(len(rows) - len(seen), 'film')} whose view is not known are left out.")
        return with_findings(seen, ledger)


def _film_rows(name: str, report: ElementTree.Element, views: dict[str, str], rules: LabelRules) -> Iterator[FilmRow]:
    patient = report.find("uId")
    for image in report.iter("parentImage"):
        film = image.get("id", "")
        yield FilmRow(
            file=f"{film}.png",
            patient_id="" if patient is None else patient.get("id", ""),
            labels=_findings(report),
            view=views.get(film, ""),
            text=clean_text(_section(report, rules.section)),
            table=name,
        )


def _findings(report: ElementTree.Element) -> tuple[str, ...]:
    """The headings of a report without what qualifies them, as `Opacity` of `Opacity/lung/base/left`."""
    heads = dict.fromkeys((node.text or "").partition("/")[0].strip() for node in report.iterfind(".//MeSH/major"))
    findings = [WORDS.get(head, head) for head in heads if head and head not in NO_LABELS]
    others = {"No Finding", "Support Devices"}.issuperset(findings)
    return tuple(dict.fromkeys(name for name in findings if others or name != "No Finding"))


def _section(report: ElementTree.Element, name: str) -> str:
    texts = {node.get("Label", "").casefold(): node.text or "" for node in report.iterfind(".//AbstractText")}
    return texts.get(name, "")


def _reports(labels: Path, ledger: Ledger) -> Iterator[tuple[str, ElementTree.Element]]:
    for name, content in sorted(_files(labels), key=lambda file: _number(file[0])):
        try:
            yield name, ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            ledger.refuse("`report` must be XML", str(error), "Restore the file.", file=name)


def _files(labels: Path) -> Iterator[tuple[str, bytes]]:
    if labels.is_dir():
        yield from ((f"{labels.name}/{path.name}", path.read_bytes()) for path in labels.glob("*.xml"))
        return
    with tarfile.open(labels) as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isfile() and member.name.endswith(".xml") else None
            if content is not None:
                yield member.name, content.read()


def _number(name: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", Path(name).stem)
    return (int(digits[0]) if digits else 0), name


def _views(ledger: Ledger) -> dict[str, str]:
    """Which films are frontal, from torchxrayvision's package, found without importing it."""
    package = importlib.util.find_spec("torchxrayvision")
    folder = Path((package.origin if package else None) or "").parent / "data"
    rows = read_rows(folder / VIEWS, (("imageid",), ("tsne-view",)), ledger)
    return {row.values["imageid"]: row.values["tsne-view"] for row in rows}


class IuXraySource(FilmTableSource):
    """Frontal films of the Indiana University collection."""

    name = "iu_xray"
    title = "the Indiana University chest X-rays"
    tables = tuple(
        FilmTable(pattern=pattern, reader=IndianaReader(), image_folders=(".", "NLMCXR_png", "images"))
        for pattern in ("ecgen-radiology", "NLMCXR_reports.tgz")
    )
