"""What MLflow's pages show of a sweep: views that are kept with the experiment, and the links that open them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from analysis.front.objectives import COSTS
from analysis.front.pareto import Objective
from analysis.run_folder import MLFLOW_STORE
from sweep.config import SweepConfig
from sweep.records.tracking.pictures import SAMPLES
from sweep.records.tracking.store import SWEEP, Place, Runs, open_experiment, place_of, runs_of

SHARED_VIEW: Final = "mlflow.sharedViewState."
"""Tag of an experiment under which MLflow 3 keeps a view that is opened by `viewStateShareKey`."""
FRONT, TRIALS = "front", "trials"
MOST_RUNS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Links:
    """Paths of MLflow's pages, behind the address of its server.

    Attributes:
        front: charts and films of the front's runs; None: there is no front yet.
        compare: MLflow's own comparison of the front's runs; likewise.
        trials: charts and films of all runs.
    """

    front: str | None
    compare: str | None
    trials: str


def keep_views(runs: Runs, objectives: Sequence[Objective]) -> None:
    """Keep with the experiment how the front, and all trials, are shown; the same again changes nothing."""
    of_sweep = runs.place.filter
    filters = {FRONT: 'tags.pareto = "true"', TRIALS: "tags.trial_id LIKE '%'"}
    started_ms = runs.client.get_run(runs.parent).info.start_time
    for view, condition in filters.items():
        state = _state(objectives, " AND ".join(filter(None, (condition, of_sweep))))
        name = {FRONT: "Pareto front", TRIALS: "All trials"}[view]
        record = {"name": name, "createdAt": started_ms, "updatedAt": started_ms, "state": json.dumps(state)}
        runs.client.set_experiment_tag(runs.experiment_id, SHARED_VIEW + _key(runs.place, view), json.dumps(record))


def settle(out: Path, config: SweepConfig) -> None:
    """Have a store of a run directory shown as a running sweep has it: also one that was moved, or is of an earlier version.

    The caller owns the folder.
    """
    place = place_of(out)
    if place.server is not None or not (out / MLFLOW_STORE).is_file():
        return
    client = place.client()
    experiment_id = open_experiment(client, place, config.preset)
    parent = next((run for run in runs_of(client, experiment_id) if SWEEP in run.data.tags), None)
    if parent is not None:
        keep_views(Runs(client, place, experiment_id, parent.info.run_id, {}), config.reported_objectives())


def links_of(place: Place, preset: str) -> Links | None:
    """Where MLflow shows a sweep; None: it knows nothing of it yet."""
    client = place.client()
    experiment = client.get_experiment_by_name(preset)
    runs = list(runs_of(client, experiment.experiment_id, place.filter)) if experiment is not None else []
    if not any(SWEEP in run.data.tags for run in runs):
        return None
    front = [run.info.run_id for run in runs if run.data.tags.get("pareto") == "true"]
    return links(place, experiment.experiment_id, front)


def links(place: Place, experiment_id: str, front: Sequence[str]) -> Links:
    """See `Links`; `front` are the ids of its runs.

    Args:
        place: where the runs are kept.
        experiment_id: MLflow's id of the sweep's experiment.
        front: ids of the runs on the front; empty: none is.
    """
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey="
    chosen = f"runs={_listed(front)}&experiments={_listed([experiment_id])}"
    return Links(
        front=page + _key(place, FRONT) if front else None,
        compare=f"#/compare-runs?{chosen}" if front else None,
        trials=page + _key(place, TRIALS),
    )


def _listed(names: Sequence[str]) -> str:
    """A list as MLflow's pages read it, without what a terminal would take for the end of a link."""
    return quote(json.dumps(list(names), separators=(",", ":")), safe="")


def _key(place: Place, view: str) -> str:
    return f"{view}-{place.sweep_id}"


def _state(objectives: Sequence[Objective], filter_string: str) -> dict[str, Any]:
    """A view's filter, order and charts. Runs in the order of a metric are not hidden under their parent."""
    return {
        "searchFilter": filter_string,
        "orderByKey": f"metrics.`{objectives[0].name}`",
        "orderByAsc": objectives[0].direction == "min",
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": _charts([objective.name for objective in objectives]),
        "compareRunSections": [
            {"uuid": "trade-offs", "name": "Trade-offs", "display": True, "isReordered": True, "columns": 1},
            {"uuid": "films", "name": "Films", "display": True, "isReordered": True, "columns": 1},
            {"uuid": "pairs", "name": "Two at a time", "display": True, "isReordered": True, "columns": 2},
        ],
        "isAccordionReordered": True,
    }


def _charts(names: Sequence[str]) -> list[Mapping[str, Any]]:
    parallel = {"type": "PARALLEL", "selectedParams": [], "selectedMetrics": list(names), "showAllRuns": True}
    films = {"type": "IMAGE", "imageKeys": [SAMPLES], "step": 0}
    pairs: list[dict[str, Any]] = [{"type": "SCATTER", "xaxis": _axis(x), "yaxis": _axis(y)} for x, y in _pairs(names)]
    placed: list[tuple[str, dict[str, Any]]] = [
        ("trade-offs", parallel),
        *(("pairs", pair) for pair in pairs),
        ("films", films),
    ]
    common: dict[str, Any] = {"isGenerated": False, "deleted": False, "runsCountToCompare": MOST_RUNS}
    return [
        {"uuid": f"chart-{number}", "metricSectionId": section, **common, **chart}
        for number, (section, chart) in enumerate(placed)
    ]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The first objective over each cost and beside each other metric."""
    return [(name, names[0]) if name in COSTS else (names[0], name) for name in names[1:]]


def _axis(name: str) -> dict[str, str]:
    return {"key": name, "type": "METRIC"}
