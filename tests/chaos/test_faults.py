"""The faults that the driver injects are the ones that it means, and its checks see what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from broken_sweeps import Sweep
from checking import UnsoundError, _numbers, _require_equal, finished

from sweep.records.log import RecordLog, read_log

HERE = Path(__file__).resolve().parent
APPENDING = """
import sys
from pathlib import Path
from analysis.files import whole_file
from sweep.records.log import RecordLog
log = RecordLog.create(Path(sys.argv[1]) / "events.log")
for number in range(6):
    try:
        with whole_file(Path(sys.argv[1]) / f"file-{number}") as file:
            file.write(b"whole")
        log.append("end", {"number": number})
    except OSError as error:
        print(number, error.strerror, flush=True)
"""


def with_fault(fault: str, out: Path) -> subprocess.CompletedProcess[str]:
    faults = {"CHAOS_FAULT": fault, "CHAOS_ONCE": f"{out}.once", "CHAOS_OUT": str(out)}
    path = os.pathsep.join([str(HERE / "injected"), str(HERE.parents[1])])
    command, environment = [sys.executable, "-c", APPENDING, str(out)], {**os.environ, **faults, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def numbers_in(out: Path) -> list[int]:
    return [record["number"] for record in read_log(out / "events.log").records]


def test_a_record_meets_a_failing_disk_once(tmp_path: Path) -> None:
    """The log's head is the first record; that of the third trial the fourth."""
    (tmp_path / "run").mkdir()
    ended = with_fault("eio:4", tmp_path / "run")
    assert (ended.returncode, ended.stdout) == (0, "2 Input/output error\n"), ended.stderr
    assert numbers_in(tmp_path / "run") == [0, 1, 3, 4, 5]


def test_a_process_dies_between_a_files_rename_and_its_record(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert with_fault("rename:3", tmp_path / "run").returncode == -9
    assert numbers_in(tmp_path / "run") == [0, 1]
    assert sorted(path.name for path in (tmp_path / "run").glob("file-*")) == ["file-0", "file-1", "file-2"]
    (tmp_path / "run" / "events.log").unlink()
    assert with_fault("rename:3", tmp_path / "run").returncode == 0  # one death is enough


def test_numbers_that_differ_are_seen_and_times_are_not(tmp_path: Path) -> None:
    whole = pd.DataFrame({"trial_id": ["a", "b"], "loss": [0.5, 0.25], "epoch_s": [1.0, 2.0]})
    tables = {
        "whole": whole,
        "slower": whole.assign(epoch_s=9.0)[::-1],
        "other": whole.assign(loss=[0.5, 0.26]),
        "fewer": whole[:1],
    }
    numbers = {}
    for name, table in tables.items():
        table.to_parquet(tmp_path / name)
        numbers[name] = _numbers(tmp_path / name, ["trial_id"])
    _require_equal("trials", numbers["slower"], numbers["whole"])
    for name in ("other", "fewer"):
        with pytest.raises(UnsoundError):
            _require_equal("trials", numbers[name], numbers["whole"])


def test_what_was_finished_is_known_by_its_bytes(tmp_path: Path) -> None:
    assert finished(tmp_path) == {}
    log = RecordLog.create(tmp_path / "events.log")
    log.append("end", {"trial_id": "a", "kind": "completed"})
    adapter = tmp_path / "trials" / "a" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "weights").write_bytes(b"1")
    before = finished(tmp_path)
    (adapter / "weights").write_bytes(b"2")
    after = finished(tmp_path)
    assert before.keys() == after.keys() == {"events.log", str(adapter / "weights")}
    assert before["events.log"] == after["events.log"] and before != after


def test_a_sweeps_processes_are_those_that_came_with_it(tmp_path: Path) -> None:
    sleeping = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeping) as before:
        sweep = Sweep(tmp_path / "run")
        with subprocess.Popen(sleeping) as child:
            try:
                left = {process.pid for process in sweep.left()}
            finally:
                before.kill()
                child.kill()
    assert child.pid in left and before.pid not in left
