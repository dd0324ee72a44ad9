"""The two tables of "Pixels under Pressure", for any run whose finalists were evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.final_scores import BASE, FinalScores
from analysis.report.words import number

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of finished cells.

    Attributes:
        title: what the table shows.
        note: how to read it.
        head: names of the columns.
        rows: one row a finalist, in the columns of `head`.
        references: rows of real films, to compare with.
        num_texts: columns, the first ones, that hold texts; the others hold numbers.
    """

    title: str
    note: str
    head: Row
    rows: tuple[Row, ...]
    references: tuple[Row, ...] = ()
    num_texts: int = 2


def paper_tables(finalists: Sequence[FinalScores]) -> tuple[PaperTable, ...]:
    """Fidelity, diversity and alignment; the first two by condition; and utility. One row a finalist.

    Source:
        Pixels under Pressure, its tables of fidelity with alignment and of classifiers trained on synthetic films.
    """
    adapted = [finalist for finalist in finalists if finalist.trial_id != BASE]
    if not adapted:
        return ()
    names, extractor = adapted[0].record["conditions"], adapted[0].record["extractor"]["name"]
    return (
        _alignment_table(adapted, names, extractor),
        _by_condition(adapted, names, f"fid_{extractor}", f"Table 1a. FID ({extractor}) by condition, lower is better"),
        _by_condition(
            adapted, names, f"vendi_{extractor}", f"Table 1b. Vendi score ({extractor}) by condition, higher is better"
        ),
        _utility_table(adapted, names),
    )


def _alignment_table(finalists: Sequence[FinalScores], names: Sequence[str], extractor: str) -> PaperTable:
    fid, vendi = f"fid_{extractor}", f"vendi_{extractor}"
    rows = [
        (
            finalist.trial_id,
            finalist.strategy,
            with_interval(finalist, fid),
            with_interval(finalist, vendi),
            *_cells(finalist, "alignment_recall/{}", names, percent),
        )
        for finalist in finalists
    ]
    first = finalists[0]
    return PaperTable(
        title="Table 1. Fidelity, diversity and alignment on test patients",
        note="Conditions: per cent of the films whose caption names it in which the classifier finds it; "
        f"where its AUC is near 0.5 that says nothing.{_seeds(finalists)}",
        head=("trial", "strategy", "FID ↓", "Vendi ↑", *names),
        rows=tuple(rows),
        references=(
            ("real", "test films", "", "", *_cells(first, "alignment_recall_real/{}", names, percent)),
            ("", "classifier's AUC", "", "", *_cells(first, "classifier_auc/{}", names, two_digits)),
        ),
    )


def _by_condition(finalists: Sequence[FinalScores], names: Sequence[str], metric: str, title: str) -> PaperTable:
    rows = [
        (finalist.trial_id, finalist.strategy, *_cells(finalist, f"{metric}/{{}}", names, number))
        for finalist in finalists
    ]
    first = finalists[0].record["studies"].get("fidelity", {}).get("details", {}).get("figures", [])
    counts = {figure["condition"]: str(figure["num_generated"]) for figure in first if figure["condition"] is not None}
    return PaperTable(
        title=title,
        note="Values of one column compare; across columns the numbers of films differ.",
        head=("trial", "strategy", *names),
        rows=tuple(rows),
        references=(("", "films of each kind", *(counts.get(name, "–") for name in names)),),
    )


def _utility_table(finalists: Sequence[FinalScores], names: Sequence[str]) -> PaperTable:
    rows = [
        (finalist.trial_id, finalist.strategy, *_cells(finalist, "utility_accuracy/synthetic/{}", names, percent))
        for finalist in finalists
    ]
    first = finalists[0]
    count = first.value("utility_num_images/synthetic")
    return PaperTable(
        title="Table 2. Accuracy (%) on real test films of a classifier trained on synthetic films",
        note=f"Each classifier saw {number(count)} films. Means over its seeds. Accuracy flatters a classifier that never finds "
        "a rare condition; the report has areas under the curve.",
        head=("trial", "strategy", *names),
        rows=tuple(rows),
        references=(("real", "trained on as many", *_cells(first, "utility_accuracy/real/{}", names, percent)),),
    )


def _cells(finalist: FinalScores, pattern: str, names: Sequence[str], shown: Callable[[float | None], str]) -> Row:
    return tuple(shown(finalist.value(pattern.format(name))) for name in names)


def _seeds(finalists: Sequence[FinalScores]) -> str:
    most = max(finalist.num_seeds for finalist in finalists)
    if most == 1:
        return " Brackets: 95 % intervals over films, real ones by patient."
    return f" Means{' and 95 % intervals' if most > 2 else ''} over {most} trainings."


def with_interval(finalist: FinalScores, name: str) -> str:
    """A number with its 95 % interval where there is one."""
    value, ends = finalist.value(name), finalist.interval(name)
    return number(value) if ends is None else f"{number(value)} [{ends[0]:.3g}, {ends[1]:.3g}]"


def percent(value: float | None) -> str:
    """A share in per cent with one digit."""
    return number(None) if value is None else f"{100 * value:.1f}"


def two_digits(value: float | None) -> str:
    """A number with two digits behind the point."""
    return number(None) if value is None else f"{value:.2f}"
