"""The two tables of "Pixels under Pressure", for any run whose finalists were evaluated; and a replayed study's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.final_scores import BASE, FinalScores, read_finalists
from analysis.report.published import Beside, beside_published
from analysis.report.words import number
from analysis.run_folder import CONFIG

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of finished cells.

    Attributes:
        title: what the table shows.
        note: how to read it.
        head: names of the columns; all but the first two hold numbers.
        rows: one row a finalist, in the columns of `head`.
        references: rows of real films, to compare with.
    """

    title: str
    note: str
    head: Row
    rows: tuple[Row, ...]
    references: tuple[Row, ...] = ()


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


def print_tables(run: Path, console: Console) -> None:
    """Print the tables of a run.

    Raises:
        FileNotFoundError: nothing of the run was evaluated.
        ValueError: a file is damaged.
    """
    comparable = read_finalists(run)
    tables = paper_tables(comparable.finalists)
    if not tables:
        raise FileNotFoundError(
            f"`--tables` must be of a run whose finalists were evaluated, but got {str(run)!r}. "
            "Evaluate them with `python -m sweep.evaluate --run DIR`."
        )
    for table in tables:
        console.print(_for_terminal(table))
    adapted = [finalist for finalist in comparable.finalists if finalist.trial_id != BASE]
    for published in beside_published(_preset_of(run), adapted):
        console.print(_beside_for_terminal(published))
    if comparable.note:
        console.print(comparable.note, highlight=False, soft_wrap=True)


def _preset_of(run: Path) -> str:
    config = run / CONFIG
    return str(json.loads(config.read_text(encoding="utf-8")).get("preset", "")) if config.is_file() else ""


def _beside_for_terminal(published: Beside) -> Table:
    shown = Table(title=f"{published.title} (ours / published)", title_justify="left", caption_justify="left")
    shown.caption = published.verdict
    for position, name in enumerate(published.head):
        shown.add_column(name, justify="right" if position else "left", overflow="fold")
    for row in published.rows:
        shown.add_row(*row)
    return shown


def _for_terminal(table: PaperTable) -> Table:
    shown = Table(title=table.title, title_justify="left", caption=table.note, caption_justify="left")
    for position, name in enumerate(table.head):
        shown.add_column(name, justify="left" if position < 2 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(cell.replace(" [", "\n[") for cell in row))
    shown.add_section()
    for row in table.references:
        shown.add_row(*row, style="dim")
    return shown


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
