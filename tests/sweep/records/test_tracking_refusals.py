"""A tracking server that answers and takes no records is told while the sweep goes on, and its records are kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from analysis.front.pareto import Front, Objective
from sweep.config import SweepConfig
from sweep.presets import demo
from sweep.records import outbox
from sweep.records.settings import TrackingConfig
from sweep.records.tracking import Tracker, tracker

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
        held = Tracker.start(config_of(uri), tmp_path, said.append)
        deadline_s = time.monotonic() + 30
        while not said and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert f"{uri} takes no records" in said[0] and str(status) in said[0]
        outcome = held.finish(NOTHING)
    assert outcome is not None and "--resume sends them" in outcome
