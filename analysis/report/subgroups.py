"""Tables of subgroups of patients: the report's, every string escaped, and those of CheXGenBench for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from analysis.final_scores import FinalScores
from analysis.report.paper import PaperTable, with_interval
from analysis.report.tables import NUMERIC, table


@dataclass(frozen=True, kw_only=True)
class SubgroupFigure:
    """A figure that is given by subgroup.

    Attributes:
        study: that gives it.
        words: how it is called, with the direction that is better.
        details: where among the details of the study stands which groups are too small.
    """

    study: str
    words: str
    details: str = "subgroups"


Figures = Mapping[str, SubgroupFigure]
FIGURES: Final[Figures] = {
    "kid": SubgroupFigure(study="fidelity", words="KID ↓"),
    "alignment": SubgroupFigure(study="alignment", words="share aligned ↑"),
    "utility_auc": SubgroupFigure(study="utility", words="AUC of a classifier trained on synthetic films ↑"),
}
"""Figures of subgroups by name."""
BENCHMARK: Final[Figures] = {
    "benchmark_kid": SubgroupFigure(study="benchmark", words="KID ↓", details="subgroups_of_fidelity"),
    "benchmark_auc": SubgroupFigure(
        study="benchmark", words="AUC of a classifier trained on synthetic films ↑", details="subgroups_of_utility"
    ),
}
"""Those of CheXGenBench."""
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


def subgroup_tables(finalists: Sequence[FinalScores]) -> tuple[PaperTable, ...]:
    """CheXGenBench's figures by sex, age band and view, a table for each finalist that has them."""
    head = ("group", *(figure.words for figure in BENCHMARK.values()))
    tables = ((finalist, subgroup_rows(finalist, BENCHMARK)) for finalist in finalists)
    return tuple(
        PaperTable(
            title=f"CheXGenBench by subgroup: {finalist.strategy}, trial {finalist.trial_id}",
            note=NOTE,
            head=head,
            rows=tuple(rows),
            num_texts=1,
        )
        for finalist, rows in tables
        if rows
    )


def subgroup_rows(finalist: FinalScores, figures: Figures = FIGURES) -> list[tuple[str, ...]]:
    """Group, figures in their order; the gaps of a division after its groups; then groups that are too small."""
    names = {
        name.partition("/")[2]
        for figure in figures
        for name in finalist.values
        if name.startswith(f"subgroup_{figure}/")
    }
    rows = []
    for division in DIVISIONS:
        groups = sorted(name for name in names if name.startswith(f"{division} "))
        rows += [
            (name, *(with_interval(finalist, f"subgroup_{figure}/{name}") for figure in figures)) for name in groups
        ]
        if len(groups) > 1:
            gaps = (with_interval(finalist, f"subgroup_{figure}_gap/{division}") for figure in figures)
            rows.append((f"largest gap by {division}", *gaps))
    few = _too_few(finalist, figures.values())
    return rows + [(name, *("too few films",) * len(figures)) for name in few if name not in names]


def _too_few(finalist: FinalScores, figures: Iterable[SubgroupFigure]) -> list[str]:
    details = ((finalist.record["studies"].get(each.study, {}).get("details", {}), each.details) for each in figures)
    return sorted({name for known, key in details for name in known.get(key, {}).get("too_few", {})})


def _table(finalist: FinalScores) -> str:
    rows = subgroup_rows(finalist)
    if not rows:
        return ""
    head = ["group", *(f"{figure.words}{NUMERIC}" for figure in FIGURES.values())]
    title = f"Subgroups of patients: {finalist.strategy}, trial {finalist.trial_id}"
    return f"<p><b>{escape(title)}</b></p>{table(head, [_row(row) for row in rows])}"


def _row(cells: Sequence[str]) -> str:
    first, *numbers = (escape(cell) for cell in cells)
    right = "".join(f'<td class="n">{cell}</td>' for cell in numbers)
    return f"<tr><td>{first}</td>{right}</tr>"
