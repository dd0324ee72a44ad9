"""A run directory has one owner."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import until

from analysis.terminal import Interrupted
from sweep.config import ConfigError
from sweep.records import owner as owner_module
from sweep.records.owner import DEAD_AFTER_S, LOCK, owned

OWNING = """
import sys, time
from pathlib import Path
from sweep.records.owner import owned
with owned(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "mine").touch()
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_made_for_its_owner_alone_and_free_again_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "run"
    with owned(out):
        assert out.stat().st_mode & 0o777 == 0o700
        (out / "events.log").touch()
    with owned(out):
        pass
    assert [file.name for file in out.iterdir()] == ["events.log"]


def test_a_folder_that_it_made_and_in_which_nothing_was_left_is_taken_away_again(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    for name in ("run", "users"):
        with owned(tmp_path / name):
            pass
    assert [folder.name for folder in tmp_path.iterdir()] == ["users"]


def test_folders_that_were_made_for_it_go_too_also_where_the_last_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    with owned(tmp_path / "users" / "runs" / "run"):
        pass
    with pytest.raises(OSError, match="too long"), owned(tmp_path / "users" / "runs" / ("run" * 100)):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "users"]


@pytest.mark.parametrize("had", [(), ("notes.txt",), ("cache/mine",), ("config.json",)])
def test_of_a_run_that_did_not_begin_only_what_was_there_before_stays(tmp_path: Path, had: tuple[str, ...]) -> None:
    out = tmp_path / "runs" / "run"
    for name in had:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("users")
    with pytest.raises(Interrupted), owned(out):
        (out / "cache" / "dataset").mkdir(parents=True)
        for name in ("cache/dataset/dataset.json", "provenance.json", "config.json"):
            (out / name).touch()
        raise Interrupted
    left = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert left == {*had, *(["cache/dataset/dataset.json"] if "cache/mine" in had else [])}
    assert (tmp_path / "runs").exists() == bool(had)


def test_what_a_run_that_began_has_stays_whatever_ends_it(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), owned(tmp_path / "run"):
        (tmp_path / "run" / "cache").mkdir()
        (tmp_path / "run" / "events.log").touch()
        raise Interrupted
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"cache", "events.log"}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with (
        pytest.raises(ConfigError, match="`run directory` must be a folder, but got the file"),
        owned(tmp_path / "run"),
    ):
        pass


@pytest.mark.slow
def test_a_living_owner_is_named_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "owned\n"
        said = rf"process {process.pid} on {socket.gethostname()} writes to. Choose another, or end"
        with pytest.raises(ConfigError, match=said), owned(tmp_path):
            pass
        assert (tmp_path / "mine").exists()
        process.send_signal(signal.SIGKILL)
    with owned(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(("silent_for_s", "is_refused"), [(1.0, True), (DEAD_AFTER_S + 1, False)])
def test_an_owner_elsewhere_whose_lock_does_not_show_here_is_known_by_its_beat(
    tmp_path: Path, silent_for_s: float, is_refused: bool
) -> None:
    owner = {"host": "another", "pid": 7, "beat": time.time() - silent_for_s}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if is_refused:
        with pytest.raises(ConfigError, match="process 7 on another writes to"), owned(tmp_path):
            pass
    else:
        with owned(tmp_path):
            pass


def without_locks(handle: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize(("lives", "silent_for_s"), [(True, 1.0), (True, DEAD_AFTER_S + 1), (False, 1.0)])
def test_where_a_file_system_has_no_locks_the_owners_sign_of_life_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool, silent_for_s: float
) -> None:
    monkeypatch.setattr(fcntl, "flock", without_locks)
    with subprocess.Popen(["true"]) as ended:
        pass
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid() if lives else ended.pid,
        "beat": time.time() - silent_for_s,
    }
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if lives and silent_for_s < DEAD_AFTER_S:
        with pytest.raises(ConfigError, match="must not be in use"), owned(tmp_path):
            pass
    else:
        with owned(tmp_path):
            pass


def test_an_owner_whose_folder_another_has_taken_ends_and_leaves_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended for longer than an owner may be silent."""
    monkeypatch.setattr(owner_module, "BEAT_S", 0.01)
    told: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append(number))
    with owned(tmp_path):
        (tmp_path / LOCK).write_text(json.dumps({"host": "another", "pid": 7, "token": "its", "beat": 0.0}))
        until(lambda: told)
        assert told == [signal.SIGTERM] and json.loads((tmp_path / LOCK).read_text())["token"] == "its"
