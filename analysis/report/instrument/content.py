"""What the page knows of the trials, as plain values for JSON; no mathematics of the front is left to the browser."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any, Final

import pandas as pd
from PIL import Image

from analysis.front.history import hypervolume_history
from analysis.front.objectives import COSTS
from analysis.front.pareto import PARAMETER_PREFIX, FrontPoint, Objective, pareto_mask
from analysis.front.statuses import COMPLETED, with_status
from analysis.report.front_table import KNEE, WITHIN_NOISE
from analysis.report.instrument.pool import RUN, Pool, key
from analysis.report.plots import LOG_FROM_RATIO, strategy_styles
from analysis.report.words import label, parameters
from analysis.run_folder import BASELINE_SHEET, REFERENCE_SHEET, SAMPLES_SHEET, WORD_MAPS_KEY, RunFolder
from analysis.studies.rung_agreement import EARLY

FRONT: Final = "front"
SHEET_GAP_PX: Final = 2
SHEET_LABEL_PX: Final = 16
"""How the sheets of samples are laid out: a gap around each film, and a label above each condition's row."""


def content(pool: Pool, curves: Sequence[str], word_maps: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """All that the page's scripts are told.

    Args:
        pool: the runs.
        curves: columns of the reports to draw over the epochs.
        word_maps: pictures of what words moved, by the keys of their trials.
    """
    conditions = _conditions(pool)
    styles = strategy_styles(pool.trials["strategy"])
    fronts = {name: _front_of_condition(pool, name) for name in conditions}
    return {
        "objectives": [_objective(pool, objective) for objective in pool.objectives],
        "conditions": conditions,
        "strategies": [{"name": name, "colour": colour, "marker": marker} for name, (colour, marker) in styles.items()],
        "runs": [_run(pool, place) for place in range(len(pool.runs))],
        "trials": [_trial(pool, row, fronts) for row in pool.trials.to_dict("records")],
        "curves": [_curve(pool, column) for column in curves],
        "word_maps": {name: _map_layout(path) for name, path in (word_maps or {}).items()},
    }


def _conditions(pool: Pool) -> list[str]:
    """Conditions for which a metric was measured, in the order of the sheets' rows."""
    prefixes = tuple(f"{objective.name}/" for objective in pool.objectives)
    names = [str(name).partition("/")[2] for name in pool.trials.columns if str(name).startswith(prefixes)]
    return list(dict.fromkeys(names))


def _objective(pool: Pool, objective: Objective) -> dict[str, Any]:
    values = with_status(pool.trials, COMPLETED)[objective.name].dropna()
    wide = len(values) > 0 and values.min() > 0 and values.max() / values.min() > LOG_FROM_RATIO
    return {
        "name": objective.name,
        "label": label(objective.name),
        "direction": objective.direction,
        "log": bool(wide),
        "cost": objective.name in COSTS,
        "base": _plain(pool.front.base.get(objective.name)),
    }


def _run(pool: Pool, place: int) -> dict[str, Any]:
    run = pool.runs[place]
    gpus = _gpus_of_a_trial(run.config.get("compute", {}))
    history = hypervolume_history(run.trials, run.results, pool.objectives)
    return {
        "name": _names(pool)[place],
        "folder": str(run.folder),
        "sheet": sheet_layout(run, len(_conditions(pool))),
        "gpus": gpus,
        "history": {
            "counts": history.counts.tolist(),
            "hours": [_plain(value) for value in history.hours * (gpus or 1.0)],
            "volumes": [_plain(value) for value in history.volumes],
        },
        "large": {name: _beside(pool, run.folder / sheet) for name, sheet in OTHER_SHEETS.items()},
    }


def _gpus_of_a_trial(compute: Mapping[str, Any]) -> float:
    """The GPUs of all its workers; of [fewest, most] workers, the most are counted, as `search.stop.gpu_hours` does."""
    workers = compute.get("workers_per_trial", 1)
    return float(max(workers) if isinstance(workers, Sequence) else workers) * float(
        compute.get("gpus_per_worker", 0.0)
    )


OTHER_SHEETS: Final = {"base": BASELINE_SHEET, "reference": REFERENCE_SHEET}
"""Sheets of films that no trial made, by the names that they have on the page."""


def _names(pool: Pool) -> list[str]:
    """The runs' folders, with a number where two are called alike."""
    names = [run.folder.resolve().name for run in pool.runs]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def sheets(pool: Pool) -> dict[str, Path]:
    """The sheets of films by the keys of their trials, and of the base and the held-out films of each run."""
    paths = {
        key(place, name): run.picture(sheet)
        for place, run in enumerate(pool.runs)
        for name, sheet in OTHER_SHEETS.items()
    }
    for row in pool.trials.to_dict("records"):
        paths[str(row["trial_id"])] = pool.runs[row[RUN]].samples(_own_name(row))
    return {name: path for name, path in paths.items() if path is not None}


def sheet_layout(run: RunFolder, num_conditions: int) -> dict[str, int] | None:
    """Where the films are on a run's sheets, in pixels; None where there is no sheet or it is laid out otherwise."""
    paths = [
        run.picture(REFERENCE_SHEET),
        run.picture(BASELINE_SHEET),
        *map(run.samples, run.trials["trial_id"].astype(str)),
    ]
    path = next((candidate for candidate in paths if candidate is not None), None)
    if path is None or num_conditions == 0:
        return None
    with Image.open(path) as image:
        width, height = image.size
    row, rest = divmod(height, num_conditions)
    film = row - SHEET_LABEL_PX - 2 * SHEET_GAP_PX
    columns, over = divmod(width - SHEET_GAP_PX, film + SHEET_GAP_PX) if film > 0 else (0, 1)
    if rest or over:
        return None
    top = SHEET_LABEL_PX + SHEET_GAP_PX
    return {
        "width": width,
        "height": height,
        "row": row,
        "top": top,
        "film": film,
        "gap": SHEET_GAP_PX,
        "columns": columns,
    }


def _map_layout(path: Path) -> dict[str, Any]:
    """The words whose maps a picture has, and where.

    Raises:
        ValueError: the picture does not say it.
    """
    with Image.open(path) as image:
        said = image.info.get(WORD_MAPS_KEY)
        width, height = image.size
    try:
        return {**json.loads(said or ""), "width": width, "height": height}
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(
            f"`{path.name}` must say in its text which words it maps, but got {said!r}. Delete {path}, or map again with "
            "`python -m sweep.evaluate --word-maps`."
        ) from error


def _trial(pool: Pool, row: Mapping[Any, Any], fronts: Mapping[str, set[str]]) -> dict[str, Any]:
    name, strategy, status = str(row["trial_id"]), str(row["strategy"]), str(row.get("status", COMPLETED))
    point = _points(pool).get(name)
    params = {str(column): value for column, value in row.items() if str(column).startswith(PARAMETER_PREFIX)}
    objectives = [objective.name for objective in pool.objectives]
    run = pool.runs[row[RUN]]
    return {
        "key": name,
        "run": row[RUN],
        "id": _own_name(row),
        "strategy": strategy,
        "params": parameters(params, strategy),
        "status": status,
        "rung": _plain(row.get("rung")),
        "mark": _mark(pool, name),
        "probability": _plain(pool.front.probabilities.get(name)),
        "values": {objective: _plain(row.get(objective)) if status == COMPLETED else None for objective in objectives},
        "early": {objective: _plain(row.get(f"{EARLY}{objective}")) for objective in objectives}
        if status != COMPLETED
        else {},
        "errors": {objective: _plain(error) for objective, error in point.errors.items()} if point else {},
        "conditions": {
            condition: {
                objective: _plain(row.get(f"{objective}/{condition}"))
                for objective in objectives
                if f"{objective}/{condition}" in row
            }
            for condition in fronts
        },
        "fronts": [condition for condition, members in fronts.items() if name in members],
        "large": _beside(pool, run.folder / "trials" / _own_name(row) / SAMPLES_SHEET),
    }


def _points(pool: Pool) -> dict[str, FrontPoint]:
    return {point.trial_id: point for point in (*pool.front.points, *pool.front.near)}


def _mark(pool: Pool, name: str) -> str:
    point = _points(pool).get(name)
    if point is None:
        return ""
    return KNEE if point.knee else FRONT if point in pool.front.points else WITHIN_NOISE


def _front_of_condition(pool: Pool, condition: str) -> set[str]:
    """The trials that none other dominates by what was measured for a condition and by costs."""
    done = with_status(pool.trials, COMPLETED)
    if done.empty:
        return set()
    columns = [
        f"{objective.name}/{condition}" if f"{objective.name}/{condition}" in done else objective.name
        for objective in pool.objectives
    ]
    mask = pareto_mask(done[columns].to_numpy("float64"), [objective.direction for objective in pool.objectives])
    return set(done["trial_id"].astype(str)[mask])


def _curve(pool: Pool, column: str) -> dict[str, Any]:
    """A column over the epochs: trial, epoch, value where it is finite."""
    tables = [run.results for run in pool.runs]
    points = [
        [key(place, str(trial)), int(epoch), float(value)]
        for place, table in enumerate(tables)
        if column in table
        for trial, epoch, value in table.dropna(subset=[column])[["trial_id", "epoch", column]].itertuples(index=False)
        if math.isfinite(value)
    ]
    return {"name": column, "label": label(column), "points": points}


def _own_name(row: Mapping[Any, Any]) -> str:
    return str(row["trial_id"]).partition(":")[2]


def _beside(pool: Pool, path: Path) -> str:
    """Where a file lies, from the page on."""
    return Path(relpath(path, pool.runs[0].folder)).as_posix()


def _plain(value: Any) -> Any:
    """A number for JSON, or null where there is none or it is infinite."""
    if value is None or pd.isna(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return float(value)
