"""How a sweep went, on its MLflow run: hypervolume by completed trials and hours, and pictures and tables of the report."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pandas as pd

from analysis.front.history import History, hypervolume_history
from analysis.report.course import FEWEST_TRIALS, attainments, course_plot
from analysis.report.curves import curve_plot
from analysis.run_folder import RunFolder
from analysis.studies.importance import importances
from sweep.records.tracking.store import Runs

HYPERVOLUME: Final = "hypervolume"
"""Metric of the parent run, stepped by completed trials: the front's hypervolume, 1 when the sweep first ended."""
HOURS: Final = "trial_hours"
"""Beside it, the hours of training and evaluation that all trials together had taken."""
MOST_AT_ONCE: Final = 1000
"""Numbers that MLflow takes in one request."""
FOLDER: Final = "course"
"""Of the parent's artifacts."""
SHOWN_TABLES: Final = "mlflow.loggedArtifacts"
"""Artifacts that the MLflow UI shows as tables; its own `log_table` adds rows to those that are there."""


def keep_course(runs: Runs, run: RunFolder) -> None:
    """Keep with the parent run how the sweep went; the same again changes nothing.

    MLflow forgets no metric, so what a sweep adds that had ended before is in the units of its first end.

    Args:
        runs: of the sweep.
        run: what lies in its run directory.
    """
    objectives = run.front.objectives
    if len(objectives) < 2:
        return
    logged = runs.client.get_metric_history(runs.parent, HYPERVOLUME)
    _log_hypervolume(runs, run, {point.step for point in logged})
    history = hypervolume_history(run.trials, run.results, objectives)
    if len(history.trial_ids) < FEWEST_TRIALS:
        return
    scratch = runs.place.out / "trials"  # on the same disk, so that pictures can be linked
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".course-", dir=scratch) as folder:
        runs.keep(runs.parent, list(_pictures(run, history, Path(folder))), FOLDER)
    for name, table in {"attainment": attainment_frame(run), "importance": importance_frame(run)}.items():
        if len(table):
            show_table(runs, f"{FOLDER}/{name}.json", table)


def _log_hypervolume(runs: Runs, run: RunFolder, known: set[int]) -> None:
    """Add what the metric lacks, in one request as long as MLflow takes so many: a part would give another unit."""
    from mlflow.entities import Metric

    history = hypervolume_history(run.trials, run.results, run.front.objectives, as_of=len(known) or None)
    now_ms = int(time.time() * 1000)
    metrics = [
        Metric(name, float(value), now_ms, step)
        for step, values in enumerate(zip(history.volumes, history.hours, strict=True), start=1)
        for name, value in zip((HYPERVOLUME, HOURS), values, strict=True)
        if step not in known
    ]
    for first in range(0, len(metrics), MOST_AT_ONCE):
        runs.client.log_batch(runs.parent, metrics=metrics[first : first + MOST_AT_ONCE])


def _pictures(run: RunFolder, history: History, folder: Path) -> Iterator[Path]:
    contents = {"hypervolume.png": course_plot(history, form="png"), "learning_curves.png": curve_plot(run, form="png")}
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
            yield folder / name


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
