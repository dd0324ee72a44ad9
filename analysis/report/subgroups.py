"""The report's table of subgroups of patients; every string escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from analysis.final_scores import FinalScores
from analysis.report.paper import with_interval
from analysis.report.tables import NUMERIC, table

FIGURES = {
    "kid": ("fidelity", "KID ↓"),
    "alignment": ("alignment", "share aligned ↑"),
    "utility_auc": ("utility", "AUC of a classifier trained on synthetic films ↑"),
}
"""Figures of subgroups: the study that gives them, and how they are called."""
DIVISIONS = ("sex", "age", "view")
NOTE = (
    "Groups of at least 20 films of 20 patients, by what is known of the real films whose captions were used; KID as it does not "
    "favour large groups. Intervals are over patients. That of the largest gap pays for having looked at all pairs: where it "
    "holds 0, no gap is shown."
)


def subgroups_section(finalists: Sequence[FinalScores]) -> str:
    """A table a finalist, or nothing where no group was large enough."""
    shown = "".join(_table(finalist) for finalist in finalists)
    return f"{shown}<p class='quiet'>{escape(NOTE)}</p>" if shown else ""


def subgroup_rows(finalist: FinalScores) -> list[tuple[str, ...]]:
    """Group, figures in the order of `FIGURES`; the gaps of a division after its groups; then groups that are too small."""
    names = {
        name.partition("/")[2]
        for figure in FIGURES
        for name in finalist.values
        if name.startswith(f"subgroup_{figure}/")
    }
    rows = []
    for division in DIVISIONS:
        groups = sorted(name for name in names if name.startswith(f"{division} "))
        rows += [
            (name, *(with_interval(finalist, f"subgroup_{figure}/{name}") for figure in FIGURES)) for name in groups
        ]
        if len(groups) > 1:
            gaps = (with_interval(finalist, f"subgroup_{figure}_gap/{division}") for figure in FIGURES)
            rows.append((f"largest gap by {division}", *gaps))
    return rows + [(name, *("too few films",) * len(FIGURES)) for name in _too_few(finalist) if name not in names]


def _too_few(finalist: FinalScores) -> list[str]:
    studies = (finalist.record["studies"].get(study, {}) for study, _ in FIGURES.values())
    return sorted(
        {name for study in studies for name in study.get("details", {}).get("subgroups", {}).get("too_few", {})}
    )


def _table(finalist: FinalScores) -> str:
    rows = subgroup_rows(finalist)
    if not rows:
        return ""
    head = ["group", *(f"{words}{NUMERIC}" for _, words in FIGURES.values())]
    title = f"Subgroups of patients: {finalist.strategy}, trial {finalist.trial_id}"
    return f"<p><b>{escape(title)}</b></p>{table(head, [_row(row) for row in rows])}"


def _row(cells: Sequence[str]) -> str:
    first, *numbers = (escape(cell) for cell in cells)
    right = "".join(f'<td class="n">{cell}</td>' for cell in numbers)
    return f"<tr><td>{first}</td>{right}</tr>"
