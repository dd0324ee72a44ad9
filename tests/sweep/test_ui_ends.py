"""How `python -m sweep.ui` ends, and which store it shows; nothing is started."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
from pathlib import Path

import optuna
import pytest
import typer
from rich.console import Console

from sweep import ui
from sweep.loading import load_config, load_run_config
from sweep.presets import demo
from sweep.records import study_store
from sweep.records.log import RecordLog
from sweep.records.servers import Server, answers


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of before `tracking` was in configurations, and before `study.db`."""
    out = tmp_path / "run"
    out.mkdir()
    RecordLog.create(out / "events.log").close()
    config = demo().model_dump(mode="json")
    del config["tracking"]
    (out / "config.json").write_text(json.dumps(config))
    return out


@pytest.mark.parametrize("way", ["set", "environment"])
def test_a_servers_password_is_refused_and_not_repeated(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "https://me:s3cret@host:5000"
    if way == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        load_config("demo", None, [f"tracking.uri={uri}"] if way == "set" else [])
    assert "s3cret" not in str(refused.value)


def test_control_c_is_how_it_ends_and_no_failure(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(servers: list[Server]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    monkeypatch.setattr(ui, "_settle", lambda *arguments: False)
    monkeypatch.setattr(ui, "_commands", lambda *arguments: {})
    monkeypatch.setattr(ui, "_wait", interrupted)
    with pytest.raises(typer.Exit) as ended:
        ui.main(run=out)
    assert ended.value.exit_code == 0


def test_control_c_while_programs_start_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "_settle", lambda *arguments: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(typer.Exit) as ended:
        ui.main(run=out)
    assert ended.value.exit_code == 130


def test_a_run_of_before_is_shown_from_its_own_store_whatever_server_the_environment_names(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (out / "mlflow.db").touch()
    assert "MLflow" in ui._commands(out, 5000, 8080)
    assert not [note for note in ui._notes(out, [], False) if "127.0.0.1:9" in note]


def test_a_study_that_cannot_be_made_leaves_out_the_dashboard_and_says_so(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise optuna.exceptions.StorageInternalError("disk full")

    monkeypatch.setattr(study_store, "rebuild_study", full)
    assert ui._settle(out, load_run_config(out), Console()) is False
    assert "disk full" in capsys.readouterr().out
    (note,) = [note for note in ui._notes(out, [], False) if "optuna-dashboard" in note]
    assert "study.db" in note and "pip install" not in note


def test_programs_of_this_machine_are_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert answers(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


def test_what_speaks_another_protocol_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            with listening.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b"SSH-2.0-x\r\n")

        threading.Thread(target=speak, daemon=True).start()
        assert not answers(f"http://127.0.0.1:{listening.getsockname()[1]}/")


def test_nothing_to_wait_for_is_not_called_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    ui._print({"Report": "file:///r"}, [], Console(), is_served=False)
    assert "Ctrl+C" not in capsys.readouterr().out
