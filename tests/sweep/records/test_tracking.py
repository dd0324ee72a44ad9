"""Tracking, read back from a real MLflow store."""

from __future__ import annotations

import json
import os
import shlex
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from analysis.front.pareto import Front, FrontPoint, Objective
from sweep.presets import demo
from sweep.records.settings import TrackingConfig
from sweep.records.tracking import Tracker
from sweep.trials.ends import TrialEnd

COMPLETED = TrialEnd.completed()
ODD = "r1 100% x #3? it's;&=+%20"
"""Of all folders' names, one with what shells, addresses and SQLite take for something else."""
FRONT = Front(
    objectives=(Objective("fid_mini", "min"), Objective("vendi_mini", "max")),
    points=(
        FrontPoint(
            trial_id="a", strategy="lora", values={"fid_mini": 1.0, "vendi_mini": 2.0}, params={"rank": 4}, knee=True
        ),
        FrontPoint(trial_id="c", strategy="unet", values={"fid_mini": 0.5, "vendi_mini": 1.0}, params={}, knee=False),
    ),
)


def track_sweep(out: Path) -> tuple[str, bool]:
    """Four trials, one of them failed and one stopped. Returns the `mlflow ui` command, and whether records waited for a busy store."""
    adapter = out / "trials" / "a" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter.json").write_text("{}")
    (out / "front.png").write_bytes(b"png")
    (adapter.parent / "samples.png").touch()  # no picture, which costs no record
    tracker, free = Tracker.start(demo(), out), threading.Event()

    def be_busy(store: object) -> None:
        free.wait()

    tracker._submit(be_busy)
    for trial_id, strategy in (("a", "lora"), ("b", "dora"), ("c", "unet"), ("d", "bitfit")):
        tracker.trial(trial_id, strategy, {"rank": 4, "lr": 1e-3})
        for epoch in (1, 2):
            tracker.report(
                trial_id, epoch, {"epoch": epoch, "loss": 1.0 / epoch, "fid_xrv-mimic_nb/Lung Opacity": 3.0, "x": ""}
            )
    tracker.end("a", COMPLETED, [adapter])
    tracker.end("c", COMPLETED)
    tracker.end("d", TrialEnd.stopped("`fid_mini` is beaten", rung=1))
    tracker.end("b", TrialEnd.failed("loss must be finite" + "!" * 9000))
    waited = tracker.num_waiting() == 18
    free.set()
    tracker.finish(FRONT, [out / "front.png"])
    return tracker.place.ui_command, waited


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("run") / ODD
    command, waited = track_sweep(out)
    client = MlflowClient(shlex.split(command)[-1])
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    runs = {run.data.tags.get("trial_id", "parent"): run for run in client.search_runs([experiment.experiment_id])}
    return SimpleNamespace(out=out, command=command, waited=waited, client=client, runs=runs)


def artifacts(tracked: SimpleNamespace, run: Any, path: str | None = None) -> set[str]:
    return {item.path for item in tracked.client.list_artifacts(run.info.run_id, path)}


@pytest.mark.slow
def test_one_child_a_trial_under_one_parent(tracked: SimpleNamespace) -> None:
    assert set(tracked.runs) == {"parent", "a", "b", "c", "d"}
    parent = tracked.runs["parent"]
    for trial_id in "abcd":
        assert tracked.runs[trial_id].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["training.num_epochs"] == str(demo().training.num_epochs)
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_parameters_and_metrics_of_each_epoch(tracked: SimpleNamespace) -> None:
    run = tracked.runs["a"]
    assert run.data.params == {"rank": "4", "lr": "0.001"}
    history = tracked.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics == {"loss": 0.5, "fid_xrv-mimic_nb/Lung Opacity": 3.0}


def test_a_runs_status_and_tags_say_how_its_trial_ended(tracked: SimpleNamespace) -> None:
    status = {trial_id: tracked.runs[trial_id].info.status for trial_id in "abcd"}
    assert status == {"a": "FINISHED", "b": "FAILED", "c": "FINISHED", "d": "KILLED"}
    tags = {trial_id: tracked.runs[trial_id].data.tags for trial_id in "abd"}
    assert {trial_id: tags[trial_id]["end"] for trial_id in tags} == {"a": "completed", "b": "failed", "d": "stopped"}
    assert tags["b"]["reason"].startswith("loss must be finite!") and "reason" not in tags["a"]
    assert (tags["d"]["reason"], tags["d"]["rung"]) == ("`fid_mini` is beaten", "1")


def test_tags_say_which_trials_are_on_the_front(tracked: SimpleNamespace) -> None:
    tags = {trial_id: tracked.runs[trial_id].data.tags for trial_id in "abcd"}
    assert {trial_id for trial_id in tags if tags[trial_id].get("pareto") == "true"} == {"a", "c"}
    assert {trial_id for trial_id in tags if tags[trial_id].get("knee") == "true"} == {"a"}


def test_adapter_table_and_plot_are_artifacts(tracked: SimpleNamespace) -> None:
    assert artifacts(tracked, tracked.runs["a"], "adapter") == {"adapter/adapter.json"}
    parent = tracked.runs["parent"]
    note = parent.data.tags["mlflow.note.content"].splitlines()
    assert note[2] == "| trial | strategy | hyperparameters | fid_mini ↓ | vendi_mini ↑ |"
    assert note[4] == "| a (knee) | lora | rank 4 | 1 | 2 |"
    assert artifacts(tracked, parent) == {"front.png", "pareto_table.csv", "pareto_table.json"}
    table = json.loads(Path(tracked.client.download_artifacts(parent.info.run_id, "pareto_table.json")).read_text())
    assert table["columns"] == ["trial_id", "strategy", "fid_mini", "vendi_mini", "rank", "knee"]
    assert table["data"] == [["a", "lora", 1.0, 2.0, 4.0, True], ["c", "unet", 0.5, 1.0, None, False]]


def test_trials_do_not_wait_and_nothing_is_sent_home(tracked: SimpleNamespace) -> None:
    assert tracked.waited
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


def test_the_store_lies_in_the_runs_folder_whatever_its_name_and_nothing_beside_it(tracked: SimpleNamespace) -> None:
    assert shlex.split(tracked.command)[:-1] == ["mlflow", "ui", "--backend-store-uri"]
    assert (tracked.out / "mlflow.db").is_file()
    assert list(tracked.out.parent.iterdir()) == [tracked.out]


@pytest.mark.slow
def test_a_sweep_that_breaks_off_leaves_no_run_open_nor_its_machine_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    tracker = Tracker.start(demo().model_copy(update={"tracking": TrackingConfig(system_metrics=True)}), tmp_path)
    for trial_id in ("done", "broken off"):
        tracker.trial(trial_id, "lora", {})
    tracker.end("done", COMPLETED)
    while tracker.num_waiting() or "system/cpu_utilization_percentage" not in parent_of(tmp_path).data.metrics:
        time.sleep(0.2)
    tracker.abort()
    assert tracker.place.ui_command == f"mlflow ui --backend-store-uri sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(shlex.split(tracker.place.ui_command)[-1])
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    status = {run.data.tags.get("trial_id", "parent"): run.info.status for run in runs}
    assert status == {"parent": "FAILED", "done": "FINISHED", "broken off": "KILLED"}


def parent_of(out: Path) -> Any:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    return client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], "tags.sweep = 'true'"
    )[0]


def test_what_fails_in_the_background_is_told_at_the_end_and_fails_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tracker = Tracker.start(demo(), tmp_path / "file" / "run")
    tracker.end("a", COMPLETED)
    said = tracker.finish(FRONT)
    assert said is not None and said.startswith("`mlflow.db` lacks records") and "NotADirectoryError" in said
