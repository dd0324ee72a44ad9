"""A tracking server that answers and takes no records is told while the sweep goes on, and its records are kept."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from patience import until
from werkzeug.serving import make_server

from analysis.front.history import History
from analysis.front.pareto import Front, FrontPoint, Objective
from sweep.config import SweepConfig
from sweep.presets import demo
from sweep.records import outbox
from sweep.records.settings import TrackingConfig
from sweep.records.tracking import Tracker, tracker
from sweep.records.tracking.course import Course
from sweep.records.tracking.new_store import make_store, store_uri
from sweep.trials.ends import TrialEnd

pytestmark = pytest.mark.slow

NOTHING = Front(objectives=(Objective("fid_mini", "min"),), points=())


@contextmanager
def answering(status_of: Callable[[str], int]) -> Iterator[str]:
    """The address of a server that answers each path with that status."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = status_of(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"experiments": []}).encode() if status == 200 else b"no")

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def mlflow_server(folder: Path, patch: pytest.MonkeyPatch, refused: bytes) -> Iterator[str]:
    """The address of MLflow's own server, in this process, which fails at requests that hold these bytes."""
    make_store(folder / "server.db")
    patch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri(folder / "server.db"))
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(folder))
    from mlflow.server import app, handlers

    patch.setattr(handlers, "_tracking_store", None)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if refused in body:
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"a fault of the server"]
        return app.wsgi_app(environ | {"wsgi.input": io.BytesIO(body)}, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(tracker, "SERVER_S", 0.3)


def config_of(uri: str) -> SweepConfig:
    return demo().model_copy(update={"tracking": TrackingConfig(uri=uri)})


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_is_locked_is_told_while_the_sweep_goes_on_and_its_records_are_kept(
    tmp_path: Path, status: int
) -> None:
    said = list[str]()
    with answering(lambda path: status) as uri:
        tracker = Tracker.start(config_of(uri), tmp_path, said.append)
        until(lambda: said)
        assert f"{uri} takes no records" in said[0] and str(status) in said[0]
        outcome = tracker.finish(NOTHING)
    assert outcome is not None and "--resume sends them" in outcome


def test_a_record_that_a_server_refuses_again_and_again_does_not_hold_up_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "REFUSED_S", 0.3)
    monkeypatch.setattr(tracker, "SERVER_S", 300.0)
    said = list[str]()
    with mlflow_server(tmp_path, monkeypatch, refused=b'"loss"') as uri:
        told = Tracker.start(config_of(uri), tmp_path, said.append)
        told.trial("a", "lora", {"rank": 4})
        told.report("a", 1, {"loss": 0.5})
        told.report("a", 2, {"fid_mini": 7.0})
        told.end("a", TrialEnd.completed())
        outcome = told.finish(NOTHING)
        client = MlflowClient(uri)
        (experiment,) = [each for each in client.search_experiments() if each.name == "demo"]
        (run,) = client.search_runs([experiment.experiment_id], "tags.trial_id = 'a'")
        assert run.data.metrics == {"fid_mini": 7.0} and run.info.status == "FINISHED"
    with mlflow_server(
        tmp_path, monkeypatch, refused=b"nothing"
    ) as uri:  # when the server is mended, --resume sends it
        told = Tracker.start(config_of(uri), tmp_path, said.append)
        told.trial("a", "lora", {"rank": 4})
        told.report("a", 1, {"loss": 0.5})
        told.report("a", 2, {"fid_mini": 7.0})
        told.end("a", TrialEnd.completed())
        told.replayed()
        assert told.finish(NOTHING) is None
        assert MlflowClient(uri).get_run(run.info.run_id).data.metrics == {"loss": 0.5, "fid_mini": 7.0}
    assert outcome is not None and "refused a record" in outcome and "500" in outcome
    assert "takes no records" in said[0] and "takes records again" in said[1]


def test_a_server_that_takes_no_course_has_front_knee_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "REFUSED_S", 0.3)
    monkeypatch.setattr(tracker, "SERVER_S", 300.0)
    numbers = np.ones(1)
    course = Course(
        history=History(trial_ids=("a",), counts=np.ones(1, np.int64), hours=numbers, volumes=numbers),
        pictures={},
        tables={},
    )
    monkeypatch.setattr(tracker, "course_of", lambda run: course)
    monkeypatch.setattr(tracker.RunFolder, "open", lambda folder: None)
    with mlflow_server(tmp_path, monkeypatch, refused=b'"trial_hours"') as uri:
        told = Tracker.start(config_of(uri), tmp_path)
        told.trial("a", "lora", {"rank": 4})
        told.end("a", TrialEnd.completed())
        until(lambda: not told.num_waiting())
        knee = FrontPoint(trial_id="a", strategy="lora", values={"fid_mini": 1.0}, params={}, knee=True)
        assert told.course() is None
        outcome = told.finish(Front(objectives=NOTHING.objectives, points=(knee,)))
        assert outcome is not None and "refused a record" in outcome
        client = MlflowClient(uri)
        (experiment,) = [each for each in client.search_experiments() if each.name == "demo"]
        runs = client.search_runs([experiment.experiment_id])
        (trial,), (parent,) = (
            [run for run in runs if ("sweep" in run.data.tags) == is_parent] for is_parent in (False, True)
        )
        assert (trial.data.tags["pareto"], trial.data.tags["knee"]) == ("true", "true")
        assert parent.info.status == "FINISHED" and "| a (knee) |" in parent.data.tags["mlflow.note.content"]
        assert not parent.data.metrics
