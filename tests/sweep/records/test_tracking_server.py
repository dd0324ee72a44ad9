"""A real MLflow server that is killed in the middle and started again: nothing is waited for, lost or doubled."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
import pytest
import warm_python
from mlflow import MlflowClient
from mlflow.entities import Run
from patience import until
from PIL import Image

from analysis.front.pareto import Front, FrontPoint, Objective
from sweep.config import SweepConfig
from sweep.presets import demo
from sweep.records.events import BaselineScored, Ended, Event, Reported, Started
from sweep.records.servers import Server, port_for
from sweep.records.settings import TrackingConfig
from sweep.records.tracking import Tracker, TrackingListener, close_broken, quieten, tracker
from sweep.records.tracking.new_store import make_store, store_uri

OBJECTIVES = (Objective("fid_mini", "min"),)
NUM_EPOCHS = 5
SERVED = ("uvicorn", "mlflow.server.fastapi_app", "mlflow.cli")
"""What a server imports; uvicorn first, by which MLflow knows that it is one."""
MLFLOW = f"""
import os, pathlib, runpy, sys
import {", ".join(SERVED)}

def serve(command, extra_env, **options):
    os.environ.update(extra_env)
    sys.argv = command[2:]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)

pathlib.Path(sys.argv.pop(1)).write_text(str(os.getpid()))
mlflow.server._exec_cmd = serve
mlflow.cli.cli()
"""
"""MLflow's own command, which serves in its own process: it would start another Python, which imports all of MLflow once more."""
IMPORTED = "WARM_MLFLOW"
"""Where a Python listens that has imported that already."""
INITDB = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)


def events_of(trial_id: str, number: int) -> list[Event]:
    choice = {"strategy": {"name": "lora", "rank": 4}, "lr": 1e-3, "batch_size": 16}
    reports = [
        Reported(trial_id=trial_id, metrics={"epoch": epoch, "loss": 1 / (epoch + 1), "fid_mini": 9.0 - epoch})
        for epoch in range(NUM_EPOCHS)
    ]
    end = Ended(trial_id=trial_id, kind="completed", reason=None, rung=None)
    return [Started(trial_id=trial_id, number=number, choice=choice), *reports, end]


def run_folder(out: Path) -> Path:
    """What trials have left on the disk."""
    for trial_id in "abcd":
        (out / "trials" / trial_id / "adapter").mkdir(parents=True)
        (out / "trials" / trial_id / "adapter" / "adapter.json").write_text(trial_id)
        Image.new("L", (8, 8)).save(out / "trials" / trial_id / "samples.png")
    (out / "provenance.json").write_text('{"data_fingerprint": "f00d", "command": ["sweep/run.py", "--out", "a b"]}')
    return out


@pytest.fixture(scope="module")
def imported() -> Iterator[None]:
    """What servers import, which takes each of them longer than all else that it does here."""
    quieten()
    if warm_python.VARIABLE not in os.environ:
        yield
        return
    with warm_python.serving(IMPORTED, *SERVED):
        yield


@contextmanager
def server(store: str, folder: Path, port: int) -> Iterator[Server]:
    """A server that keeps artifacts in a folder of its own."""
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    arguments = ["server", *places, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = folder / "server.log"
    with log.open("wb") as output:
        command = [*warm_python.command(IMPORTED), "-c", MLFLOW, str(folder / "server.pid"), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server(name="MLflow", address=f"http://127.0.0.1:{port}", health="/health", process=process, log=log)
    finally:
        process.kill()
        process.wait()


def kill(server: Server) -> None:
    """End a server as a power cut does; when this returns it is dead."""
    os.kill(int(server.log.with_name("server.pid").read_text()), signal.SIGKILL)
    server.process.wait()


def sqlite(folder: Path) -> str:
    """A new store, copied: MLflow's server takes ten seconds to make one."""
    file = folder / "server.db"
    make_store(file)
    return store_uri(file)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own, which refuses to be root, in a folder that its user can reach."""
    assert INITDB is not None
    as_user: list[str] = []
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    port, programs = port_for("port", None, 5600), Path(INITDB).resolve().parent
    data = folder / "data"
    commands = {
        "init": [programs / "initdb", "-D", data, "-A", "trust", "-U", "sweep", "--no-sync"],
        "start": [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "start"],
        "create": [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "sweep", "runs"],
        "stop": [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
    }
    commands["start"][4:4] = ["-o", f"-p {port} -h 127.0.0.1 -k {folder} -F"]

    def do(name: str) -> None:
        subprocess.run([*as_user, *map(str, commands[name])], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    do("init")
    do("start")
    try:
        do("create")
        yield f"postgresql+psycopg2://sweep@127.0.0.1:{port}/runs"
    finally:
        do("stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite(tmp_path)
        return
    if INITDB is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as uri:  # pytest's folders are root's alone
        yield uri


def settings(port: int) -> SweepConfig:
    return demo().model_copy(update={"tracking": TrackingConfig(uri=f"http://127.0.0.1:{port}")})


def tell(told: Tracker, out: Path, past: list[Event], new: list[Event] = []) -> None:  # noqa: B006
    listener = TrackingListener(told, out, OBJECTIVES)
    for event in past:
        event.tell(listener)
    told.replayed()
    for event in new:
        event.tell(listener)


def written(told: Tracker) -> None:
    until(lambda: not told.num_waiting())


def front(*trial_ids: str) -> Front:
    points = tuple(
        FrontPoint(trial_id=name, strategy="lora", values={"fid_mini": 1.0}, params={}, knee=name == "a")
        for name in trial_ids
    )
    return Front(objectives=OBJECTIVES, points=points)


def require_whole(port: int, sweep: str, trials: str) -> dict[str, Run]:
    """Each trial once, with each epoch once, its end and its files."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "demo"]
    runs = client.search_runs([experiment.experiment_id], f"tags.sweep_id = '{sweep}'")
    names = sorted(run.data.tags.get("trial_id", "parent") for run in runs)
    assert names == sorted([*trials, "parent"])
    named = {run.data.tags.get("trial_id", "parent"): run for run in runs}
    for trial_id in trials:
        run_id = named[trial_id].info.run_id
        history = client.get_metric_history(run_id, "loss")
        assert sorted(point.step for point in history) == list(range(NUM_EPOCHS))
        assert named[trial_id].data.params["rank"] == "4"
        assert named[trial_id].data.tags["end"] == "completed"
        assert named[trial_id].info.status == "FINISHED"
        assert {file.path for file in client.list_artifacts(run_id)} - {"model"} == {"adapter", "images", "samples.png"}
        assert len(client.list_artifacts(run_id, "images")) == 2  # a picture and its thumbnail
    parent = named["parent"]
    assert parent.data.metrics["base_fid_mini"] == 9.5 and parent.data.metrics["completed_trials"] == len(trials)
    assert sorted(point.step for point in client.get_metric_history(parent.info.run_id, "best_fid_mini")) == [
        *range(1, len(trials) + 1)
    ]
    assert [entry.dataset.digest for entry in parent.inputs.dataset_inputs] == ["f00d"]
    assert parent.data.tags["mlflow.source.name"] == "sweep/run.py --out 'a b'"
    return named


@pytest.mark.slow
def test_what_a_server_misses_while_it_is_dead_it_gets_when_it_lives_and_only_once(
    imported: None, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "SERVER_S", 1.0)
    out, port, said = run_folder(tmp_path / "run"), port_for("port", None, 5700), list[str]()
    config, base = settings(port), BaselineScored(scores={"fid_mini": 9.5})
    past = [*events_of("a", 0), base, *events_of("b", 1)]
    with ExitStack() as first:
        dying = first.enter_context(server(store, tmp_path, port))
        dying.wait()
        told = Tracker.start(config, out, said.append)
        tell(told, out, [], past[:10])
        while told.num_waiting() > 2:  # in the middle of it
            time.sleep(0.002)
        kill(dying)
        began = time.monotonic()
        listener = TrackingListener(told, out, OBJECTIVES)
        for event in past[10:]:
            event.tell(listener)
        left = told.finish(front("a"))
        assert time.monotonic() - began < 60  # of 1 s of patience, and the end of a request
        assert left is not None and "--resume" in left
        assert any("takes no records" in line for line in said)
    monkeypatch.setattr(tracker, "SERVER_S", 300.0)
    with server(store, tmp_path, port) as two:
        two.wait()
        told = Tracker.start(config, out, said.append)
        tell(told, out, past, events_of("c", 2))
        assert told.finish(front("a", "c")) is None
        runs = require_whole(port, told.place.sweep_id, "abc")
        assert {name for name, run in runs.items() if run.data.tags.get("pareto")} == {"a", "c"}
        assert runs["parent"].info.status == "FINISHED"
        again = Tracker.start(config, out)  # and telling it once more changes nothing
        tell(again, out, [*past, *events_of("c", 2)])
        assert again.finish(front("a", "c")) is None
        assert require_whole(port, told.place.sweep_id, "abc").keys() == runs.keys()
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_a_running_sweep_sends_by_itself_what_a_server_missed_and_a_neighbour_is_left_alone(
    imported: None, tmp_path: Path
) -> None:
    store, port = sqlite(tmp_path), port_for("port", None, 5700)
    out, other, said = run_folder(tmp_path / "run"), run_folder(tmp_path / "other"), list[str]()
    (other / "provenance.json").write_text('{"started": "another"}')
    config = settings(port)
    told = Tracker.start(config, out, said.append)  # while there is no server yet
    tell(told, out, [], [BaselineScored(scores={"fid_mini": 9.5}), *events_of("a", 0)])
    with server(store, tmp_path, port) as dying:
        dying.wait()
        neighbour = Tracker.start(config, other)
        tell(neighbour, other, [], events_of("d", 0)[:3])
        written(told)
        written(neighbour)
        kill(dying)
        tell_more = TrackingListener(told, out, OBJECTIVES)
        for event in events_of("b", 1):
            event.tell(tell_more)
    with server(store, tmp_path, port) as two:
        two.wait()
        written(told)
        (out / "config.json").write_text(config.model_dump_json())
        close_broken(out)
        assert told.finish(front("a")) is None
        assert [line.split()[-1] for line in said][-1] == "again."
        client = MlflowClient(f"http://127.0.0.1:{port}")
        runs = client.search_runs(["1"], f"tags.sweep_id = '{neighbour.place.sweep_id}'")
        assert {run.info.status for run in runs} == {"RUNNING"} and len(runs) == 2
        assert neighbour.abort() is None
        runs = client.search_runs(["1"], "tags.trial_id = 'b'")
        assert [run.info.status for run in runs] == ["FINISHED"]
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("uri", ["sqlite:///runs.db", "postgresql://there", "databricks", "there:5000"])
def test_what_is_no_server_is_refused_by_name(uri: str) -> None:
    with pytest.raises(
        ValueError, match=r"`tracking\.uri` must be the http or https address of an MLflow server, but got"
    ):
        TrackingConfig(uri=uri)


def test_the_environment_names_a_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://there:5000/")
    assert SweepConfig().tracking.uri == "https://there:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert SweepConfig().tracking.uri is None
