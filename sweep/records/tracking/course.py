"""How a sweep went, on its MLflow run: hypervolume by completed trials and hours, and pictures and tables of the report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from analysis.files import whole_file
from analysis.front.history import History, hypervolume_history
from analysis.report.course import FEWEST_TRIALS, attainments, course_plot
from analysis.report.curves import curve_plot
from analysis.run_folder import COURSE, RunFolder
from analysis.studies.importance import importances
from sweep.records.tracking.store import Runs, scratch

HYPERVOLUME: Final = "hypervolume"
"""Metric of the parent run, stepped by completed trials: the front's hypervolume, 1 when the sweep first ended."""
HOURS: Final = "trial_hours"
"""Beside it, the hours of training and evaluation that all trials together had taken."""
HYPERVOLUME_OF: Final = "hypervolume_of"
"""Key of the number of completed trials whose hypervolume is 1."""
FOLDER: Final = "course"
"""Of the parent's artifacts."""
SHOWN_TABLES: Final = "mlflow.loggedArtifacts"
"""Artifacts that the MLflow UI shows as tables; its own `log_table` adds rows to those that are there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """How a sweep went, drawn and counted, so that nothing is left but to send it."""

    history: History
    """Hypervolume and hours, in units of the first end."""
    pictures: Mapping[str, bytes]
    """Content of files by their names."""
    tables: Mapping[str, pd.DataFrame]
    """By their names, without an ending."""


def course_of(run: RunFolder) -> Course | None:
    """How a sweep went, None where it has one objective or no trial completed; takes seconds, of long sweeps more.

    MLflow forgets no metric, so what a sweep adds that had ended before is in the units of its first end. How many trials
    had completed then is in a file of the run directory: a tag would have to be asked for, of a server that may be away.
    """
    objectives = run.front.objectives
    if len(objectives) < 2:
        return None
    now = hypervolume_history(run.trials, run.results, objectives)
    if not len(now.counts):
        return None
    unit, last = _first_end(run.folder / COURSE, int(now.counts[-1])), int(now.counts[-1])
    history = now if unit == last else hypervolume_history(run.trials, run.results, objectives, as_of=unit)
    if last < FEWEST_TRIALS:
        return Course(history=history, pictures={}, tables={})
    drawn = {"hypervolume.png": course_plot(now, form="png"), "learning_curves.png": curve_plot(run, form="png")}
    tables = {"attainment": attainment_frame(run), "importance": importance_frame(run)}
    return Course(
        history=history,
        pictures={name: content for name, content in drawn.items() if content is not None},
        tables={name: table for name, table in tables.items() if len(table)},
    )


def _first_end(file: Path, now: int) -> int:
    """How many trials had completed when the sweep first ended, which is now where no file says it."""
    if not file.is_file():
        with whole_file(file) as opened:
            opened.write(json.dumps({HYPERVOLUME_OF: now}).encode())
    return int(json.loads(file.read_text(encoding="utf-8"))[HYPERVOLUME_OF])


def send_course(runs: Runs, course: Course) -> None:
    """Keep with the parent run how the sweep went; the same again changes nothing."""
    from mlflow.entities import Metric

    known = {point.step for point in runs.client.get_metric_history(runs.parent, HYPERVOLUME)}
    history, now_ms = course.history, int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now_ms, int(step))
        for step, *values in zip(history.counts, history.volumes, history.hours, strict=True)
        for name, value in zip((HYPERVOLUME, HOURS), values, strict=True)
        if step not in known
    ]
    if metrics:
        runs.client.log_batch(runs.parent, metrics=metrics)  # MLflow takes 1000 in one request
    with scratch(runs) as folder:
        for name, content in course.pictures.items():
            (folder / name).write_bytes(content)
        runs.keep(runs.parent, [folder / name for name in course.pictures], FOLDER)
    for name, table in course.tables.items():
        show_table(runs, f"{FOLDER}/{name}.json", table)


def attainment_frame(run: RunFolder) -> pd.DataFrame:
    """What each strategy reached, a row each: its trials, the best of each objective, and its hypervolume by itself."""
    names = [objective.name for objective in run.front.objectives]
    rows = [
        {"strategy": row.strategy, "completed": row.completed, "stopped": row.stopped}
        | {f"best {name}": value for name, value in zip(names, row.best or [None] * len(names), strict=True)}
        | {"hypervolume by itself": row.share}
        for row in attainments(run.trials, run.front.objectives)
    ]
    return pd.DataFrame(rows)


def importance_frame(run: RunFolder) -> pd.DataFrame:
    """The share of each objective's variation that a hyperparameter explains by itself, a row each."""
    shares = importances(run.trials, run.front.objectives)
    rows = [
        {"objective": objective, "hyperparameter": name, "share": share}
        for objective, of_objective in shares.items()
        for name, share in of_objective.items()
    ]
    return pd.DataFrame(rows)


def show_table(runs: Runs, path: str, table: pd.DataFrame) -> None:
    """Keep a table with the parent run where MLflow's pages show it.

    Args:
        runs: of the sweep.
        path: within the artifacts, with the ending `.json`.
        table: what to show.
    """
    runs.client.log_text(runs.parent, table.to_json(orient="split", index=False), path)
    shown = json.loads(runs.client.get_run(runs.parent).data.tags.get(SHOWN_TABLES, "[]"))
    entry = {"path": path, "type": "table"}
    if entry not in shown:
        runs.client.set_tag(runs.parent, SHOWN_TABLES, json.dumps([*shown, entry]))
