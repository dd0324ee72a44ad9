"""MLflow: one parent run for the sweep, one child run for each trial. Nothing else imports mlflow.

Opening a new store takes seconds and every write takes milliseconds of SQLite, so one background thread does all of it
in the order of the calls: trials never wait. What fails there is raised by `finish`.
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pandas as pd

from analysis.front.pareto import Front
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, EndKind
from analysis.report import draw_rank_map
from analysis.report.front_table import markdown_table
from analysis.run_folder import MLFLOW_STORE as STORE
from analysis.run_folder import SAMPLES_SHEET
from analysis.studies.rank_history import RANKS, read_ranks
from sweep.config import SweepConfig
from sweep.records.tables import flat_choice
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

ARTIFACTS: Final = "mlflow-artifacts"
QUIET: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
"""Environment that MLflow reads when it is imported: no telemetry over the network, no notes about its tables."""
RUN_STATUS: Final[Mapping[EndKind, str]] = {COMPLETED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
"""What MLflow calls the end of a trial's run; the tag `end` says it in our words."""
END: Final = "end"
"""Tag of how a trial ended."""
SWEEP: Final = "sweep"
"""Tag of the parent run."""
LONGEST_TAG: Final = 5000
CAPTION: Final = "Pareto front; its runs are tagged `pareto = true`, its knee `knee = true`."
NOTE: Final = "mlflow.note.content"
"""Shown as the run's description in the MLflow UI, as Markdown."""
SHOWN_TABLES: Final = "mlflow.loggedArtifacts"
"""Artifacts that the MLflow UI shows as tables; its own `log_table` adds rows to those that are there."""


class TrackingError(RuntimeError):
    """MLflow refused some of the records."""


@dataclass(frozen=True, slots=True)
class _Store:
    """What the background thread works on."""

    client: Any
    experiment_id: str
    parent: str
    children: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    """Trials whose runs are closed."""
    steps: dict[str, int] = field(default_factory=dict)
    """While the past is told again: the last epoch that a trial's run holds already."""

    def end(self, trial_id: str, status: str) -> None:
        """Close a trial's run."""
        self.client.set_terminated(self.children[trial_id], status=status)
        self.ended.add(trial_id)


class Tracker:
    """Records a sweep in the SQLite store of its run directory, in the background."""

    def __init__(self, out: Path) -> None:
        """See `Tracker.start`."""
        self._out = out
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self._pending: list[Future[None]] = []
        self._store: _Store | None = None
        self._has_ended = False

    @classmethod
    def start(cls, config: SweepConfig, out: Path) -> Tracker:
        """Open a store and the sweep's parent run, a new one or the one that is there; returns at once.

        Where the store holds the past already, telling it again up to `replayed` adds only what is missing.

        Args:
            config: Recorded as the parent's parameters.
            out: Run directory; the store is `mlflow.db` in it.
        """
        tracker = cls(out)
        tracker._pending.append(tracker._thread.submit(tracker._open, config))
        return tracker

    def replayed(self) -> None:
        """The past has been told: from now on everything is new."""
        self._submit(lambda store: store.steps.clear())

    def trial(self, trial_id: str, strategy: str, params: Mapping[str, Any], *, cut_of: str | None = None) -> None:
        """Open a child run for a trial, or for a smaller adapter of the trial `cut_of`."""
        started_ms = _now_ms()

        def write(store: _Store) -> None:
            if trial_id in store.children:
                return
            tags = {"mlflow.parentRunId": store.parent, "strategy": strategy, "trial_id": trial_id}
            tags |= {} if cut_of is None else {"cut_of": cut_of}
            name = f"{strategy}-{trial_id}"
            run = store.client.create_run(store.experiment_id, start_time=started_ms, tags=tags, run_name=name)
            store.children[trial_id] = run.info.run_id
            store.client.log_batch(run.info.run_id, params=_params(params))

        self._submit(write)

    def report(self, trial_id: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Record a trial's numbers at an epoch, in one batch; what is not a number is left out."""
        at = (_now_ms(), epoch)

        def write(store: _Store) -> None:
            if epoch > store.steps.get(trial_id, -1):
                _log_metrics(store, trial_id, metrics, at)

        self._submit(write)

    def end(self, trial_id: str, end: TrialEnd, artifacts: Sequence[Path] = ()) -> None:
        """Close a trial's run, tagged with how it ended and why, with copies of files and folders as its artifacts."""

        def write(store: _Store) -> None:
            if trial_id in store.ended:
                return
            _log_artifacts(store, store.children[trial_id], artifacts)
            for tag, value in _end_tags(end).items():
                store.client.set_tag(store.children[trial_id], tag, value)
            store.end(trial_id, RUN_STATUS[end.kind])

        self._submit(write)

    def finish(self, front: Front, artifacts: Sequence[Path] = ()) -> None:
        """Tag the front's runs, put its table and the sweep's files on the parent, and wait until all is written.

        Args:
            front: Its trials are tagged `pareto=true`, its knee `knee=true` besides.
            artifacts: Files such as the front's plot.

        Raises:
            TrackingError: some records could not be written.
        """
        self._submit(lambda store: _write_front(store, front))
        self._end("FINISHED", artifacts)

    def abort(self) -> None:
        """Close the parent run as failed and runs of unfinished trials as killed, and wait until all is written.

        Raises:
            TrackingError: some records could not be written.
        """
        self._end("FAILED", ())

    def ui_command(self) -> str:
        """Command that shows the store in a browser."""
        return f"mlflow ui --backend-store-uri {shlex.quote(_uri(self._out))}"

    def _open(self, config: SweepConfig) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._out.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(_uri(self._out))
        folder = (self._out / ARTIFACTS).resolve().as_uri()
        experiment = client.get_experiment_by_name(config.preset)
        if experiment is not None and experiment.artifact_location != folder:
            _move_artifacts(self._out / STORE, experiment.artifact_location, folder)
        if experiment is not None and (reopened := _reopened(client, experiment.experiment_id)) is not None:
            self._store = reopened
            return
        experiment_id = (
            experiment.experiment_id
            if experiment is not None
            else client.create_experiment(config.preset, artifact_location=folder)
        )
        parent = client.create_run(experiment_id, run_name=f"sweep {config.preset}", tags={SWEEP: "true"})
        client.log_batch(parent.info.run_id, params=_params(config.model_dump(mode="json")))
        self._store = _Store(client, experiment_id, parent.info.run_id)

    def _submit(self, write: Callable[[_Store], None]) -> None:
        def run() -> None:
            if self._store is not None:  # where opening failed, that error is the one to tell
                write(self._store)

        self._pending.append(self._thread.submit(run))

    def _end(self, status: str, artifacts: Sequence[Path]) -> None:
        """Close what is open; a tracker that has ended keeps its end."""
        if self._has_ended:
            return
        self._has_ended = True

        def write(store: _Store) -> None:
            for trial_id in store.children.keys() - store.ended:
                store.end(trial_id, "KILLED")
            _log_artifacts(store, store.parent, artifacts)
            store.client.set_terminated(store.parent, status=status)

        self._submit(write)
        self._thread.shutdown(wait=True)
        errors = [error for pending in self._pending if (error := pending.exception()) is not None]
        if errors:
            raise TrackingError(
                f"`{STORE}` must take every record, but got {len(errors)} errors, the first {errors[0]!r}. "
                f"The results themselves are safe in {str(self._out)!r}; free the disk or choose another --out."
            ) from errors[0]


def close_broken(out: Path) -> None:
    """Close the runs of a sweep whose process has died: the parent as failed, trials that have not ended as killed.

    Args:
        out: Run directory with a store.

    Raises:
        TrackingError: the store cannot be written.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(_uri(out))
        for experiment in client.search_experiments():
            for run in list(_runs_of(client, experiment.experiment_id)):
                if run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "FAILED" if SWEEP in run.data.tags else "KILLED")
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"`{STORE}` must take the end of its runs, but got {error!r}. Resuming opens them."
        ) from error


def _move_artifacts(store: Path, before: str, now: str) -> None:
    """Let a store that was moved or copied with its run directory name the artifacts beside it; MLflow has no way to."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (now, before))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
            (now, len(before) + 1, len(before) + 1, f"{before}/"),
        )


def _reopened(client: Any, experiment_id: str) -> _Store | None:
    """The store of a sweep that goes on: its parent run is open again, and so are those of trials without an end."""
    runs = list(_runs_of(client, experiment_id))
    parent = next((run.info.run_id for run in runs if SWEEP in run.data.tags), None)
    if parent is None:
        return None
    store = _Store(client, experiment_id, parent)
    client.update_run(parent, status="RUNNING")
    for run in runs:
        trial_id = run.data.tags.get("trial_id")
        if trial_id is None:
            continue
        store.children[trial_id] = run.info.run_id
        if END in run.data.tags and run.info.status in RUN_STATUS.values():
            store.ended.add(trial_id)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        history = client.get_metric_history(run.info.run_id, "loss") if "loss" in run.data.metrics else ()
        store.steps[trial_id] = max((point.step for point in history), default=-1)
    return store


def _runs_of(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _end_tags(end: TrialEnd) -> dict[str, str]:
    tags = {END: end.kind, "reason": end.reason, "rung": end.rung}
    return {name: str(value)[:LONGEST_TAG] for name, value in tags.items() if value is not None}


def _log_artifacts(store: _Store, run_id: str, artifacts: Sequence[Path]) -> None:
    for path in artifacts:
        if path.is_dir():
            store.client.log_artifacts(run_id, str(path), path.name)
        else:
            store.client.log_artifact(run_id, str(path))


def _log_metrics(store: _Store, trial_id: str, metrics: Mapping[str, Any], at: tuple[int, int]) -> None:
    from mlflow.entities import Metric

    time_ms, epoch = at
    numbers = {name: float(value) for name, value in metrics.items() if _is_number(value) and name != "epoch"}
    batch = [Metric(name, number, time_ms, epoch) for name, number in numbers.items()]
    store.client.log_batch(store.children[trial_id], metrics=batch)


def _write_front(store: _Store, front: Front) -> None:
    for run in list(_runs_of(store.client, store.experiment_id)):
        for tag in {"pareto", "knee"} & run.data.tags.keys():  # of the front before the sweep went on
            store.client.delete_tag(run.info.run_id, tag)
    for point in front.points:
        store.client.set_tag(store.children[point.trial_id], "pareto", "true")
        if point.knee:
            store.client.set_tag(store.children[point.trial_id], "knee", "true")
    table = _front_frame(front)
    store.client.set_tag(store.parent, NOTE, f"{CAPTION}\n\n{markdown_table(front)}"[:LONGEST_TAG])
    store.client.log_text(store.parent, table.to_json(orient="split", index=False), "pareto_table.json")
    store.client.set_tag(store.parent, SHOWN_TABLES, json.dumps([{"path": "pareto_table.json", "type": "table"}]))
    store.client.log_text(store.parent, table.to_csv(index=False), "pareto_table.csv")


def _front_frame(front: Front) -> pd.DataFrame:
    """One row a point: trial, strategy, a column for each objective and hyperparameter, and whether it is the knee."""
    rows = [
        {"trial_id": point.trial_id, "strategy": point.strategy, **point.values, **point.params, "knee": point.knee}
        for point in front.points
    ]
    return pd.DataFrame(rows, columns=None if rows else ["trial_id", "strategy", "knee"])


def _params(values: Mapping[str, Any], prefix: str = "") -> list[Any]:
    from mlflow.entities import Param

    flat: list[Any] = []
    for name, value in values.items():
        key = prefix + name
        flat += _params(value, f"{key}.") if isinstance(value, Mapping) else [Param(key, str(value))]
    return flat


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _uri(out: Path) -> str:
    """The store's address. By its plain scheme MLflow would make a folder of a name that is escaped, beside the real one."""
    path = str((out / STORE).resolve())
    escaped = quote(path)
    return f"sqlite:///{path}" if escaped == path else f"sqlite+pysqlite:///{escaped}"


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class TrackingListener(TrialListener):
    """Sends every trial's events and files to MLflow."""

    tracker: Tracker
    out: Path

    def on_start(self, suggestion: Suggestion) -> None:
        """Open the trial's run."""
        flat = flat_choice(suggestion.choice)
        self.tracker.trial(suggestion.trial_id, flat["strategy"], flat)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Record an epoch."""
        self.tracker.report(trial_id, metrics["epoch"], metrics)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Record a smaller adapter of the trial's training as a run of its own."""
        flat = flat_choice(choice)
        self.tracker.trial(cut_id, flat["strategy"], flat, cut_of=trial_id)
        self.tracker.report(cut_id, metrics["epoch"], metrics)

    def _left(self, trial_id: str) -> list[Path]:
        folder = self.out / "trials" / trial_id
        return [folder / SAMPLES_SHEET, folder / "adapter"]

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Close the trial's run, with its adapter and samples where it completed."""
        completed = end.kind == COMPLETED
        files = [*self._left(trial_id), *drawn_ranks(self.out / "trials" / trial_id)] if completed else []
        self.tracker.end(trial_id, end, files)


def drawn_ranks(folder: Path) -> list[Path]:
    """A trial's ranks and a map of them, drawn now; nothing where no rank changed."""
    ranks, picture = folder / RANKS, folder / "ranks.png"
    if not ranks.is_file():
        return []
    draw_rank_map(read_ranks(ranks), picture)
    return [ranks, picture]
