"""The Pareto front as a table for people: made once, drawn on the page, in the terminal and in MLflow's note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.report.words import ARROWS, number, parameters


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A point of the front, or the un-adapted base model, in words.

    Attributes:
        trial_id: `base` of the base model.
        strategy: its name.
        hyperparameters: in a line.
        values: one an objective; a dash where there is none.
        knee: whether it is the proposed point.
    """

    trial_id: str
    strategy: str
    hyperparameters: str
    values: tuple[str, ...]
    knee: bool = False


def front_rows(front: Front) -> list[FrontRow]:
    """The points of the front, best in the first objective first."""
    return [_point(point, front.objectives) for point in front.points]


def base_row(baseline: Mapping[str, Any], objectives: Sequence[Objective]) -> FrontRow:
    """What the un-adapted base model scores."""
    values = tuple(number(baseline.get(one.name)) for one in objectives)
    return FrontRow(
        trial_id="base", strategy="none", hyperparameters="the model before any adaptation", values=values
    )  # fmt: skip


def terminal_table(front: Front, baseline: Mapping[str, Any], title: str) -> Table:
    """The front for the terminal, the base model below it; columns are named as `--pick best:METRIC` takes them."""
    table = Table(title=title, title_justify="left")
    for name in ("trial", "strategy"):
        table.add_column(name)
    table.add_column("hyperparameters", min_width=20)
    for name in _heads(front.objectives):
        table.add_column(name, justify="right", overflow="fold")
    for row in front_rows(front):
        table.add_row(*map(escape, _cells(row)), style="bold green" if row.knee else "")
    if baseline:
        table.add_section()
        table.add_row(*map(escape, _cells(base_row(baseline, front.objectives))), style="dim")
    return table


def markdown_table(front: Front) -> str:
    """The front as a Markdown table."""
    head = ["trial", "strategy", "hyperparameters", *_heads(front.objectives)]
    rows = [head, ["---"] * len(head), *(_cells(row) for row in front_rows(front))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _point(point: FrontPoint, objectives: Sequence[Objective]) -> FrontRow:
    return FrontRow(
        trial_id=point.trial_id,
        strategy=point.strategy,
        hyperparameters=parameters(point.params, point.strategy),
        values=tuple(number(point.values.get(one.name)) for one in objectives),
        knee=point.knee,
    )


def _heads(objectives: Sequence[Objective]) -> list[str]:
    return [f"{one.name} {ARROWS[one.direction]}" for one in objectives]


def _cells(row: FrontRow) -> list[str]:
    name = f"{row.trial_id} (knee)" if row.knee else row.trial_id
    return [name, row.strategy, row.hyperparameters, *row.values]
