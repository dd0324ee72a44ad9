"""Tables of the report, every string of them escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from analysis.front.pareto import PARAMETER_PREFIX, Front, Objective
from analysis.front.statuses import COMPLETED, STOPPED
from analysis.report.front_table import (
    KNEE,
    PROBABILITY,
    WITHIN_NOISE,
    FrontRow,
    base_row,
    front_rows,
    has_probabilities,
)
from analysis.report.words import axis_label, label, number, parameters

NUMERIC = "\t"
"""Ends the heading of a column of numbers."""
QUIET_ROW = ' class="quiet"'
UNFINISHED_ROW = ' class="unfinished"'
WIDE = ' class="wide"'


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table of finished cells; a heading that ends with NUMERIC stands over numbers."""
    cells = "".join(_head_cell(name) for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _head_cell(name: str) -> str:
    text = escape(name.removesuffix(NUMERIC))
    return f'<th class="n">{text}</th>' if name.endswith(NUMERIC) else f"<th>{text}</th>"


def front_table(front: Front, baseline: Mapping[str, Any]) -> str:
    """The front, one row a point, those that noise may keep from it, and below them what the un-adapted base scores."""
    names, sure = [f"{axis_label(objective)}{NUMERIC}" for objective in front.objectives], has_probabilities(front)
    head = ["trial", "strategy", "hyperparameters", *names, *([f"{PROBABILITY}{NUMERIC}"] if sure else []), ""]
    rows = [_front_row(row, sure) for row in front_rows(front)]
    return table(head, [*rows, _front_row(base_row(front, baseline), sure, QUIET_ROW)] if baseline else rows)


def condition_table(trials: pd.DataFrame, front: Front, objective: Objective) -> str:
    """One metric of the front's trials for each condition, or nothing where it was not measured.

    Args:
        trials: one row a trial, with a column for each condition of the objective.
        front: whose trials are shown.
        objective: the metric.
    """
    prefix = f"{objective.name}/"
    columns = [column for column in trials.columns if str(column).startswith(prefix)]
    if not columns or not front.points:
        return ""
    by_id = {str(row["trial_id"]): row for row in trials.to_dict("records")}
    rows = (
        f"<tr{_row_class(point.knee)}><td>{_trial(point.trial_id)}</td><td>{escape(point.strategy)}</td>"
        + "".join(_numeric(by_id.get(point.trial_id, {}).get(column)) for column in [objective.name, *columns])
        + "</tr>"
        for point in front.points
    )
    names = [f"{column.removeprefix(prefix)}{NUMERIC}" for column in columns]
    head = ["trial", "strategy", f"all together{NUMERIC}", *names]
    return f"<p><b>{escape(axis_label(objective))}</b></p>{table(head, rows)}"


def trial_table(trials: pd.DataFrame, front: Front) -> str:
    """Every trial, with what ended it before its time where something did."""
    marks = {point.trial_id: KNEE if point.knee else "front" for point in front.points}
    marks |= {point.trial_id: WITHIN_NOISE for point in front.near}
    ordered = trials.sort_values("number", kind="stable") if "number" in trials.columns else trials
    head = ["#", "trial", "strategy", "hyperparameters", *(f"{label(o.name)}{NUMERIC}" for o in front.objectives), ""]
    rows = (_trial_row(row, marks, front.objectives) for row in ordered.to_dict("records"))
    return table(head, rows)


def _front_row(row: FrontRow, sure: bool, of_class: str = "") -> str:
    values = "".join(_numeric(value) for value in (*row.values, *([row.probability] if sure else [])))
    looks = {KNEE: _row_class(True), WITHIN_NOISE: UNFINISHED_ROW}
    return (
        f"<tr{of_class or looks.get(row.mark, '')}><td>{_trial(row.trial_id)}</td><td>{escape(row.strategy)}</td>"
        f"<td{WIDE}>{escape(row.hyperparameters)}</td>{values}<td>{_tag(row.mark) if row.mark else ''}</td></tr>"
    )


def _trial_row(row: Mapping[Any, Any], marks: Mapping[str, str], objectives: Sequence[Objective]) -> str:
    trial_id, strategy = str(row["trial_id"]), str(row.get("strategy"))
    status = row.get("status", COMPLETED)
    params = {str(name): value for name, value in row.items() if str(name).startswith(PARAMETER_PREFIX)}
    mark = _early_end(row) if status != COMPLETED else _tag(marks[trial_id]) if trial_id in marks else ""
    values = "".join(_numeric(row.get(objective.name)) for objective in objectives)
    return (
        f"<tr{'' if status == COMPLETED else UNFINISHED_ROW}><td>{escape(number(row.get('number')))}</td>"
        f"<td>{_trial(trial_id)}</td><td>{escape(strategy)}</td>"
        f"<td{WIDE}>{escape(parameters(params, strategy))}</td>{values}<td>{mark}</td></tr>"
    )


def _early_end(row: Mapping[Any, Any]) -> str:
    """The rung, and the last line of the reason with all of it behind a click."""
    reason = row.get("reason")
    text = reason.strip() if isinstance(reason, str) and reason.strip() else "no reason was recorded"
    last = re.sub(r"\s+", " ", text.splitlines()[-1])
    short = last if len(last) <= 160 else f"{last[:157]}..."
    shown = escape(short)
    if short != text:
        shown = f"<details><summary>{shown}</summary><pre>{escape(text)}</pre></details>"
    rung = f"at rung {number(row['rung'])}: " if row["status"] == STOPPED else ""
    return f"{_tag(str(row['status']))} {rung}{shown}"


def _trial(trial_id: str) -> str:
    return f"<code>{escape(trial_id)}</code>"


def _tag(name: str) -> str:
    return f'<span class="tag {escape(name.replace(" ", "-"))}">{escape(name)}</span>'


def _row_class(knee: bool) -> str:
    return ' class="knee"' if knee else ""


def _numeric(value: Any) -> str:
    return f'<td class="n">{escape(number(value))}</td>'
