"""What MLflow holds of one sweep: its experiment, parent run and children, in a file of the run directory or on a server."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from analysis.run_folder import CONFIG, MLFLOW_STORE, PROVENANCE
from sweep.records.tracking.new_store import make_store, store_uri

ARTIFACTS: Final = "mlflow-artifacts"
QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the outbox tries again, and ends when it is told to
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a server's jobs judge language models, in several processes more
}
"""Variables that keep MLflow from telemetry over the network, from notes about its tables, and from minutes in one
request."""
FAULTS_OF_STORES: Final = "mlflow.store.db.utils"
"""The logger with which MLflow writes a store's errors with their whole traces. They are raised besides, and told in a
line."""
SWEEP: Final = "sweep"
"""Tag of the parent run."""
SWEEP_ID: Final = "sweep_id"
"""Tag of a sweep's runs: on a server, several sweeps share an experiment."""
END: Final = "end"
"""Tag of how a trial ended."""
COMPLETED_TRIALS: Final = "completed_trials"
"""Metric of the parent run, and the step of its others."""
OF_BASE: Final = "base_"
"""Prefix of the parent run's metrics that are the un-adapted base model's."""
KIND: Final = ("mlflow.experimentKind", "custom_model_development")
"""Tag by which MLflow's pages show training runs and charts, and not the menu of language models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a sweep's runs are kept.

    Attributes:
        out: the run directory.
        server: address of an MLflow server; None: a store in the run directory.
    """

    out: Path
    server: str | None = None

    @property
    def uri(self) -> str:
        """MLflow's address of the store."""
        return store_uri(self.out / MLFLOW_STORE) if self.server is None else self.server

    @property
    def sweep_id(self) -> str:
        """Name of the sweep among others, the same whenever it goes on, and wherever its folder is moved."""
        provenance = self.out / PROVENANCE
        content = provenance.read_bytes() if provenance.is_file() else str(self.out.resolve()).encode()
        return hashlib.sha256(content).hexdigest()[:12]

    @property
    def filter(self) -> str:
        """MLflow's filter of the sweep's runs; a store of the run directory holds no others."""
        return "" if self.server is None else f"tags.{SWEEP_ID} = '{self.sweep_id}'"

    @property
    def ui_command(self) -> str:
        """Command that shows a store of the run directory."""
        return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"

    def client(self) -> Any:
        """An MLflow client; importing MLflow takes seconds."""
        quieten()
        from mlflow import MlflowClient

        if self.server is None:
            make_store(self.out / MLFLOW_STORE)
        return MlflowClient(self.uri)


def quieten() -> None:
    """Say to MLflow what it reads when it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger(FAULTS_OF_STORES).setLevel(logging.CRITICAL)


def place_of(out: Path) -> Place:
    """Where the runs of a run directory are kept, by its configuration."""
    config = out / CONFIG
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return Place(out=out, server=settings.get("tracking", {}).get("uri"))


LOCKED: Final = (401, 403, 429)
"""HTTP's answers of a server that lets nobody in, or no more for now: none of what it was sent."""


def is_passing(error: Exception) -> bool:
    """Whether an error of a server's client is of a server that is away, busy or locked, and not of what it was sent."""
    status = status_of(error)
    return status is not None and (status >= 500 or status in LOCKED)


def status_of(error: Exception) -> int | None:
    """HTTP's number for what a client of a server raised, 500 where none answered; None of what has to do with no server."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import HTTPError, Timeout

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    if isinstance(error, HTTPError) and error.response is not None:
        return int(error.response.status_code)
    return 500 if isinstance(error, (NoConnection, Timeout)) else None


@dataclass(frozen=True, slots=True)
class Runs:
    """MLflow's runs of one sweep, as the background thread opens, fills and closes them."""

    client: Any
    """MLflow's client, which talks to the store or the server."""
    place: Place
    """Where the store is."""
    experiment_id: str
    """MLflow's id of the experiment, which bears the preset's name."""
    parent: str
    """MLflow's id of the run of the whole sweep."""
    tags: Mapping[str, str]
    """The tags that every run of the sweep has."""
    children: dict[str, str] = field(default_factory=dict)
    """MLflow's ids of the trials' runs, by trial."""
    described: set[str] = field(default_factory=set)
    """Trials whose runs have their parameters."""
    ended: set[str] = field(default_factory=set)
    """Trials whose runs are closed."""
    steps: dict[str, set[int]] = field(default_factory=dict)
    """While the past is told again, the epochs that each trial's run holds already, and under "" the parent's steps."""

    def end(self, trial_id: str, status: str) -> None:
        """Close a trial's run."""
        self.client.set_terminated(self.children[trial_id], status=status)
        self.ended.add(trial_id)

    def open_child(self, trial_id: str, started_ms: int, tags: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """Open a trial's run, with its tags in the same request: whoever finds the run knows whose it is.

        Args:
            trial_id: the trial, or the cut, that the run is of.
            started_ms: when it began, in ms since 1970.
            tags: `strategy` and, of a cut, `cut_of`.
            values: hyperparameters by name, kept as parameters.
        """
        if trial_id not in self.children:
            named = {"mlflow.parentRunId": self.parent, "trial_id": trial_id, **self.tags, **tags}
            name = f"{tags['strategy']}-{trial_id}"
            run = self.client.create_run(self.experiment_id, start_time=started_ms, tags=named, run_name=name)
            self.children[trial_id] = run.info.run_id
        if trial_id not in self.described:
            self.client.log_batch(self.children[trial_id], params=params(values))
            self.described.add(trial_id)

    def log(self, run_id: str, metrics: Mapping[str, Any], at: tuple[int, int]) -> None:
        """Add what is a number at a time in ms and a step, in one request; the same again adds nothing.

        Args:
            run_id: MLflow's id of the run.
            metrics: by name; what is not a number is left out.
            at: time in ms since 1970, and step.
        """
        from mlflow.entities import Metric

        numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
        self.client.log_batch(run_id, metrics=[Metric(name, number, *at) for name, number in numbers.items()])

    def keep(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """Put files and folders among a run's artifacts; on this machine they are linked, not copied.

        Args:
            run_id: MLflow's id of the run.
            paths: what to keep, under the names that it has.
            folder: within the artifacts; None: at their top.
        """
        root = None if self.place.server else _local(self.client.get_run(run_id).info.artifact_uri)
        for path in paths:
            if root is not None:
                link(path, root / (folder or "") / path.name)
            elif path.is_dir():
                self.client.log_artifacts(run_id, str(path), "/".join(filter(None, (folder, path.name))))
            else:
                self.client.log_artifact(run_id, str(path), folder)


def open_runs(place: Place, config: Mapping[str, Any], *, is_past: bool) -> Runs:
    """The runs of a sweep, opened anew or for the first time; the same again changes nothing.

    Args:
        place: where they are.
        config: the sweep's configuration; its `preset` names the experiment.
        is_past: whether the sweep's past will be told again, so that what is there has to be known.
    """
    client = place.client()
    experiment_id = open_experiment(client, place, config["preset"])
    provenance = _provenance(place)
    tags = {SWEEP_ID: place.sweep_id, **_source(provenance)}
    known_runs = list(runs_of(client, experiment_id, place.filter))
    parent = next((run for run in known_runs if SWEEP in run.data.tags), None)
    if parent is None:
        name = f"sweep {config['preset']}"
        parent = client.create_run(experiment_id, run_name=name, tags={SWEEP: "true", **tags})
    runs = Runs(client, place, experiment_id, parent.info.run_id, tags)
    client.update_run(runs.parent, status="RUNNING")
    if not parent.data.params:  # they cannot change, and some of a sweep that goes on may
        client.log_batch(runs.parent, params=params(config))
    _log_dataset(client, runs.parent, config, provenance)
    for run in known_runs:
        _take_over(runs, run, is_past)
    return runs


def close_broken(place: Place) -> None:
    """Close the runs of a sweep whose process has died: the parent as failed, trials that have not ended as killed."""
    if place.server is None and not (place.out / MLFLOW_STORE).is_file():
        return
    client = place.client()
    for experiment in client.search_experiments():
        for run in list(runs_of(client, experiment.experiment_id, place.filter)):
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "FAILED" if SWEEP in run.data.tags else "KILLED")


def runs_of(client: Any, experiment_id: str, filter_string: str = "") -> Iterator[Any]:
    """All runs of an experiment that a filter leaves, page after page.

    Args:
        client: MLflow's client.
        experiment_id: MLflow's id of the experiment.
        filter_string: in MLflow's language; empty: all.
    """
    token = None
    while True:
        page = client.search_runs([experiment_id], filter_string, max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def params(values: Mapping[str, Any], prefix: str = "") -> list[Any]:
    """Nested values as MLflow's parameters."""
    from mlflow.entities import Param

    flat: list[Any] = []
    for name, value in values.items():
        key = prefix + name.replace("+", "-")  # MLflow takes no plus in names, as combinations have
        flat += params(value, f"{key}.") if isinstance(value, Mapping) else [Param(key, str(value))]
    return flat


def open_experiment(client: Any, place: Place, name: str) -> str:
    """The id of a sweep's experiment, made where it is missing, with its kind and where its artifacts lie now.

    Args:
        client: MLflow's client.
        place: where the runs are kept.
        name: the experiment's, which is the preset's.
    """
    from mlflow.exceptions import MlflowException

    folder = None if place.server else (place.out / ARTIFACTS).resolve().as_uri()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name, artifact_location=folder)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another sweep has made it in this moment
                raise
        experiment = client.get_experiment_by_name(name)
    if folder is not None and experiment.artifact_location != folder:
        _move_artifacts(place.out / MLFLOW_STORE, experiment.artifact_location, folder)
    if experiment.tags.get(KIND[0]) != KIND[1]:
        try:
            client.set_experiment_tag(experiment.experiment_id, *KIND)
        except MlflowException:  # as above
            if client.get_experiment(experiment.experiment_id).tags.get(KIND[0]) != KIND[1]:
                raise
    return str(experiment.experiment_id)


def _take_over(runs: Runs, run: Any, is_past: bool) -> None:
    """Know a run that is there, and open it where it has no end."""
    trial_id, client = run.data.tags.get("trial_id"), runs.client
    name, metric = ("", COMPLETED_TRIALS) if trial_id is None else (trial_id, "loss")
    if trial_id is not None:
        runs.children[trial_id] = run.info.run_id
        if run.data.params:
            runs.described.add(trial_id)
        if END in run.data.tags and run.info.status in ("FINISHED", "KILLED", "FAILED"):
            runs.ended.add(trial_id)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
    elif any(metric.startswith(OF_BASE) for metric in run.data.metrics):
        runs.steps[OF_BASE] = {0}
    if is_past:
        history = client.get_metric_history(run.info.run_id, metric) if metric in run.data.metrics else ()
        runs.steps[name] = {point.step for point in history}


def _move_artifacts(store: Path, before: str, now: str) -> None:
    """Let a store that was moved or copied with its run directory name the artifacts beside it; MLflow has no way to."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (now, before))
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
            (now, len(before) + 1, len(before) + 1, f"{before}/"),
        )


def _provenance(place: Place) -> Mapping[str, Any]:
    path = place.out / PROVENANCE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _source(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The command and the commit, as MLflow shows them."""
    tags = {"mlflow.source.git.commit": provenance.get("git_commit")}
    if command := provenance.get("command"):
        tags |= {"mlflow.source.type": "LOCAL", "mlflow.source.name": shlex.join(command)[:500]}
    return {name: value for name, value in tags.items() if value}


def _log_dataset(client: Any, run_id: str, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Name the data set by its fingerprint; the same again adds nothing."""
    if not (fingerprint := provenance.get("data_fingerprint")):
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data, digest = config["data"], fingerprint[:36]  # the longest that MLflow takes
    name = Path(data["path"]).name if data["path"] else data["source"]
    dataset = Dataset(name, digest, data["source"], json.dumps({**data, "fingerprint": fingerprint}))
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _local(artifact_uri: str) -> Path:
    return Path(unquote(urlsplit(artifact_uri).path))


@contextmanager
def scratch(runs: Runs) -> Iterator[Path]:
    """A folder on the disk of the run directory, so that what it holds can be linked; it goes with the block."""
    trials = runs.place.out / "trials"
    trials.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".artifacts-", dir=trials) as folder:
        yield Path(folder)


def link(path: Path, to: Path) -> None:
    """The same file or folder under another name too; copies where the disk has no links."""
    if path.is_dir():
        shutil.copytree(path, to, copy_function=_link_file, dirs_exist_ok=True)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        _link_file(path, to)


def _link_file(path: str | Path, to: str | Path) -> None:
    Path(to).unlink(missing_ok=True)
    try:
        os.link(path, to)
    except OSError:
        shutil.copy2(path, to)
