"""The Pareto front as a table for people: made once, drawn on the page, in the terminal and in MLflow's note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from analysis.front.objectives import BASE
from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.report.words import ARROWS, error, number, parameters, percent

KNEE: Final = "knee"
WITHIN_NOISE: Final = "within noise"
PROBABILITY: Final = "on the front"
"""Head of the column of probabilities."""
LOOKS: Final = {KNEE: "bold green", WITHIN_NOISE: "dim"}


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A point of the front, one that noise may keep from it, or the un-adapted base model, in words.

    Attributes:
        trial_id: the trial's id, or `base`.
        strategy: the name of its strategy.
        hyperparameters: hyperparameters and their values in a line.
        values: one an objective, with its standard error where that is known; a dash where there is none.
        probability: that it belongs to the front; empty where that is not known.
        mark: `knee` of the proposed point, `within noise` of a dominated one that may belong to the front.
    """

    trial_id: str
    strategy: str
    hyperparameters: str
    values: tuple[str, ...]
    probability: str = ""
    mark: str = ""


def front_rows(front: Front) -> list[FrontRow]:
    """The points of the front, best in the first objective first, then those that are dominated within noise."""
    marked = [(point, KNEE if point.knee else "") for point in front.points]
    marked += [(point, WITHIN_NOISE) for point in front.near]
    return [_point(point, front.objectives, mark) for point, mark in marked]


def base_row(front: Front, baseline: Mapping[str, Any]) -> FrontRow:
    """What the un-adapted base model scores, and what it costs where it is a point among the trials."""
    known = {**baseline, **front.base}
    return FrontRow(
        trial_id=BASE,
        strategy="none",
        hyperparameters="the model before any adaptation",
        values=tuple(number(known.get(objective.name)) for objective in front.objectives),
    )


def has_probabilities(front: Front) -> bool:
    """Whether it is known of the front how sure it is."""
    return bool(front.probabilities)


def terminal_table(front: Front, baseline: Mapping[str, Any], title: str) -> Table:
    """The front for the terminal, the base model below it; columns are named as `--pick best:METRIC` takes them.

    Args:
        front: what to show.
        baseline: the un-adapted base model's scores by name; empty: no row.
        title: stands above.
    """
    table, sure = Table(title=title, title_justify="left"), has_probabilities(front)
    for name in ("trial", "strategy"):
        table.add_column(name)
    table.add_column("hyperparameters", min_width=20)
    for name in _heads(front):
        table.add_column(name, justify="right", overflow="fold")
    for row in front_rows(front):
        table.add_row(*map(escape, _cells(row, sure)), style=LOOKS.get(row.mark, ""))
    if baseline:
        table.add_section()
        table.add_row(*map(escape, _cells(base_row(front, baseline), sure)), style="dim")
    return table


def markdown_table(front: Front) -> str:
    """The front as a Markdown table."""
    head = ["trial", "strategy", "hyperparameters", *_heads(front)]
    rows = [head, ["---"] * len(head), *(_cells(row, has_probabilities(front)) for row in front_rows(front))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _point(point: FrontPoint, objectives: Sequence[Objective], mark: str) -> FrontRow:
    return FrontRow(
        trial_id=point.trial_id,
        strategy=point.strategy,
        hyperparameters=parameters(point.params, point.strategy),
        values=tuple(
            number(point.values.get(objective.name)) + error(point.errors.get(objective.name))
            for objective in objectives
        ),
        probability=percent(point.probability),
        mark=mark,
    )


def _heads(front: Front) -> list[str]:
    names = [f"{objective.name} {ARROWS[objective.direction]}" for objective in front.objectives]
    return [*names, PROBABILITY] if has_probabilities(front) else names


def _cells(row: FrontRow, sure: bool) -> list[str]:
    name = f"{row.trial_id} ({row.mark})" if row.mark else row.trial_id
    return [name, row.strategy, row.hyperparameters, *row.values, *([row.probability] if sure else [])]
