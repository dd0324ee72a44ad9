"""A store that a sweep goes on with: nothing doubled, nothing lost, no tag of a front that is no more."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from analysis.front.pareto import Front, FrontPoint, Objective
from sweep.presets import demo
from sweep.records.events import Ended, Event, Reported, Started
from sweep.records.tracking import Tracker, TrackingListener, close_broken

pytestmark = pytest.mark.slow

LEFT = {"adapter", "samples.png", "images"}
LORA = {"strategy": {"name": "lora", "rank": 4}, "lr": 1e-3, "batch_size": 16}


def front(*trial_ids: str, knee: str) -> Front:
    points = tuple(
        FrontPoint(trial_id=name, strategy="lora", values={"fid": 1.0}, params={}, knee=name == knee)
        for name in trial_ids
    )
    return Front(objectives=(Objective("fid", "min"),), points=points)


def events_of(trial_id: str, number: int) -> list[Event]:
    reports = [Reported(trial_id=trial_id, metrics={"epoch": epoch, "loss": 1 / (epoch + 1)}) for epoch in range(3)]
    return [Started(trial_id=trial_id, number=number, choice=LORA), *reports]


def completed(out: Path, trial_id: str) -> Ended:
    (out / "trials" / trial_id / "adapter").mkdir(parents=True, exist_ok=True)
    (out / "trials" / trial_id / "adapter" / "adapter.json").write_text("{}")
    Image.new("L", (8, 8)).save(out / "trials" / trial_id / "samples.png")
    return Ended(trial_id=trial_id, kind="completed", reason=None, rung=None)


def client_of(out: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{out / 'mlflow.db'}")


def runs_of(out: Path) -> dict[str, Run]:
    client = client_of(out)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    names = [run.data.tags.get("trial_id", "parent") for run in runs]
    assert sorted(names) == sorted(set(names))
    return dict(zip(names, runs, strict=True))


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, list[Event]]:
    """A store as a death leaves it, and the log: of `a` all is there, `b` lacks a report and its end, `c` everything."""
    out = tmp_path / "before" / "run"
    past = [*events_of("a", 0), completed(out, "a"), *events_of("b", 1), completed(out, "b"), *events_of("c", 2)]
    tracker = Tracker.start(demo(), out)
    listener = TrackingListener(tracker, out)
    for event in past[:8]:
        event.tell(listener)
    tracker.abort()
    return out, past


def go_on(out: Path, past: list[Event]) -> None:
    """To the end of `c`."""
    tracker = Tracker.start(demo(), out)
    listener = TrackingListener(tracker, out)
    for event in past:
        event.tell(listener)
    tracker.replayed()
    completed(out, "c").tell(listener)
    tracker.finish(front("a", "b", knee="a"))


def test_what_the_store_lacks_is_told_and_nothing_twice(broken: tuple[Path, list[Event]]) -> None:
    out, past = broken
    before = runs_of(out)
    assert [before[name].info.status for name in ("parent", "a", "b")] == ["FAILED", "FINISHED", "KILLED"]
    go_on(out, past)
    after = runs_of(out)
    assert after.keys() == {"parent", "a", "b", "c"}
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert all(after[name].info.run_id == before[name].info.run_id for name in before)
    for name in "abc":
        assert [(point.step, point.value) for point in history(out, after[name])] == [(0, 1), (1, 1 / 2), (2, 1 / 3)]
        assert after[name].data.tags["end"] == "completed"
        assert artifacts(out, after[name]) == LEFT | ({"model"} if name == "a" else set())  # the knee


def history(out: Path, run: Run) -> list[Any]:
    return list(client_of(out).get_metric_history(run.info.run_id, "loss"))


def artifacts(out: Path, run: Run) -> set[str]:
    return {item.path for item in client_of(out).list_artifacts(run.info.run_id)}


def test_a_front_that_changed_leaves_no_tag_and_no_row_behind(broken: tuple[Path, list[Event]]) -> None:
    out, past = broken
    go_on(out, past)
    tracker = Tracker.start(demo(), out)
    tracker.finish(front("b", "c", knee="c"))
    runs = runs_of(out)
    tagged = {tag: sorted(name for name, run in runs.items() if tag in run.data.tags) for tag in ("pareto", "knee")}
    assert tagged == {"pareto": ["b", "c"], "knee": ["c"]}
    table = json.loads(
        Path(client_of(out).download_artifacts(runs["parent"].info.run_id, "pareto_table.json")).read_text()
    )
    assert [row[0] for row in table["data"]] == ["b", "c"]


def test_a_moved_run_finds_its_artifacts_and_adds_to_them_where_it_is(broken: tuple[Path, list[Event]]) -> None:
    out, past = broken
    moved = out.parent.parent / "moved to" / "run"
    shutil.copytree(out, moved)
    shutil.rmtree(out)
    go_on(moved, past)
    assert not out.exists()
    for run in runs_of(moved).values():
        assert run.info.artifact_uri.startswith((moved / "mlflow-artifacts").as_uri())
    assert [artifacts(moved, runs_of(moved)[name]) for name in "ac"] == [LEFT | {"model"}, LEFT]


def test_a_tracker_that_has_ended_keeps_its_end(tmp_path: Path) -> None:
    tracker = Tracker.start(demo(), tmp_path)
    tracker.finish(front(knee=""))
    tracker.abort()
    assert runs_of(tmp_path)["parent"].info.status == "FINISHED"


def test_the_runs_of_a_sweep_that_died_are_closed_and_open_again_when_it_goes_on(tmp_path: Path) -> None:
    """What the small parent does where nobody else can."""
    out = tmp_path / "run"
    tracker = Tracker.start(demo(), out)
    for event in [*events_of("a", 0), completed(out, "a"), *events_of("c", 1)]:
        event.tell(TrackingListener(tracker, out))
    while tracker.num_waiting():  # and no end: the process is dead
        time.sleep(0.01)
    assert {name: run.info.status for name, run in runs_of(out).items()} == {
        "parent": "RUNNING",
        "a": "FINISHED",
        "c": "RUNNING",
    }
    close_broken(out)
    closed = {name: run.info.status for name, run in runs_of(out).items()}
    assert closed == {"parent": "FAILED", "a": "FINISHED", "c": "KILLED"}
    go_on(out, [*events_of("a", 0), completed(out, "a"), *events_of("b", 2), completed(out, "b"), *events_of("c", 1)])
    assert {run.info.status for run in runs_of(out).values()} == {"FINISHED"}
