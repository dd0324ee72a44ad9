"""A run directory has one owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.config import ConfigError
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
        (out / "config.json").touch()
    with owned(out):
        pass
    assert [file.name for file in out.iterdir()] == ["config.json"]


def test_a_folder_in_which_nothing_was_left_is_taken_away_again(tmp_path: Path) -> None:
    with owned(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="`--out` must be a folder, but got the file"), owned(tmp_path / "run"):
        pass


def test_a_living_owner_is_named_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "owned\n"
        said = rf"process {process.pid} on {socket.gethostname()} writes to. Choose another --out"
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
