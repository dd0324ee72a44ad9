"""The small parent of a sweep: it ends as its child does, and where that dies it says so and leaves no process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import warm_python
from patience import LONG_S, until

from sweep.records import guard

pytestmark = pytest.mark.slow

GUARDED = """
import os, signal, subprocess, sys, time, typer
from pathlib import Path
from analysis.terminal import explained
from sweep import interrupts
from sweep.interrupts import interruptible
from sweep.records import guard

out, what = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which is passed on
guard.CLOSING_S, guard.LOOK_S, interrupts.SAME_S = 0.5 if what == "deaf" else 30.0, 0.1, 0.1
guard.IN_VAIN_S = 0.5 if what in ("deaf", "lost", "slow") else 30.0
look = guard.Guard._look

def look_and_tell(self):
    look(self)
    with (out / "looks").open("a") as file:
        file.write(".")
    if self._watched:
        (out / "watched").touch()

guard.Guard._look = look_and_tell

def let_it_look(times=3):
    enough = (out / "looks").stat().st_size + times
    while (out / "looks").stat().st_size < enough:
        time.sleep(0.02)

def work():
    with explained(), interruptible(), guard.records_open(out):
        started = subprocess.Popen([sys.argv[3], "60"], start_new_session=True)
        (out / "pids").write_text(f"{os.getpid()} {started.pid}")
        if what == "leave":
            (out / "ready").touch()
            sys.exit(3)
        with guard.ray_watched():
            if what == "deaf":
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            while not (out / "watched").exists():
                time.sleep(0.02)
            (out / "ready").touch()
            if what in ("shutdown", "outlived"):
                started.kill()
                if what == "outlived":
                    let_it_look()
            else:
                try:
                    time.sleep(60)
                finally:
                    time.sleep(0.5 if what == "slow" else 0)
        started.wait()
        let_it_look()

def command():
    try:
        work()
    except typer.Exit as error:
        sys.exit(error.exit_code)

guard.guarded(command, lambda out: f"Go on with: --resume {out}")
"""


@pytest.fixture
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A guarded process that does as it was told, and the process ids of its child and of what that has started.

    Its parent has seen what it is to watch.
    """
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    command = [*warm_python.command(), "-c", GUARDED, str(tmp_path), request.param, str(tmp_path / "raylet")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until((tmp_path / "ready").exists)
        yield process, [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        process.kill()


def ended(process: subprocess.Popen[str], pids: list[int]) -> tuple[int, str]:
    """Exit code and what was said, once nothing is left."""
    said = process.communicate(timeout=LONG_S)[1]
    assert not [pid for pid in pids if lives(pid)]
    return process.returncode, " ".join(said.split())


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


Started = tuple[subprocess.Popen[str], list[int]]


@pytest.mark.parametrize("started", ["leave"], indirect=True)
def test_a_child_that_ends_by_itself_gives_its_code_and_nothing_is_said(started: Started) -> None:
    assert ended(*started) == (3, "")


@pytest.mark.parametrize("started", ["work"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(started: Started, number: signal.Signals) -> None:
    os.kill(started[0].pid, number)
    assert ended(*started) == (128 + number, "error Interrupted.")


@pytest.mark.parametrize("started", ["work"], indirect=True)
def test_a_child_that_is_killed_is_cleared_up_after(started: Started, tmp_path: Path) -> None:
    os.kill(started[1][0], signal.SIGKILL)
    code, said = ended(*started)
    assert code == 137 and "its process was ended by SIGKILL without a word." in said
    assert said.endswith(f"Go on with: --resume {tmp_path}")


@pytest.mark.parametrize("started", ["lost", "deaf"], indirect=True)
def test_a_sweep_that_loses_its_ray_is_ended_and_named(started: Started) -> None:
    os.kill(started[1][1], signal.SIGKILL)
    code, said = ended(*started)
    assert "error `raylet`, a process of Ray's that the sweep cannot do without, died." in said
    assert code in (137, 143) and (code == 137) == ("Go on with" in said)
    assert (code == 137) or said.startswith("error Interrupted.")


@pytest.mark.parametrize("started", ["slow"], indirect=True)
def test_a_sweep_that_has_lost_its_ray_is_told_to_end_once_and_may_close_its_records(started: Started) -> None:
    """A second signal would end it at once."""
    os.kill(started[1][1], signal.SIGKILL)
    code, said = ended(*started)
    assert code == 143 and said.startswith("error Interrupted.")


@pytest.mark.parametrize("started", ["deaf"], indirect=True)
def test_a_sweep_that_does_not_end_on_sigterm_is_ended_in_time(started: Started, tmp_path: Path) -> None:
    """Before a scheduler kills it and its parent alike."""
    os.kill(started[0].pid, signal.SIGTERM)
    code, said = ended(*started)
    assert code == 143 and "must close its records within 0.5 s of SIGTERM, but took longer" in said
    assert said.endswith(f"Go on with: --resume {tmp_path}")


def test_other_processes_of_a_shell_that_became_the_sweep_live_on(tmp_path: Path) -> None:
    """As in a container: `exporter & exec python -m sweep.run`."""
    shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    command = f'sleep 60 & echo $! > {tmp_path}/other; exec "$@"'
    guarded = [sys.executable, "-c", GUARDED, str(tmp_path), "leave", str(tmp_path / "raylet")]
    assert subprocess.run(["sh", "-c", command, "sh", *guarded], check=False).returncode == 3
    other = psutil.Process(int((tmp_path / "other").read_text()))
    assert other.is_running() and other.status() != psutil.STATUS_ZOMBIE
    other.kill()


@pytest.mark.parametrize("started", ["shutdown", "outlived"], indirect=True)
def test_a_ray_that_is_shut_down_or_outlived_is_no_loss(started: Started) -> None:
    assert ended(*started) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.parametrize("started", ["work"], indirect=True)
def test_a_parent_that_is_killed_takes_the_sweep_along_in_order(started: Started) -> None:
    process, (child, _) = started
    process.kill()
    until(lambda: not lives(child))


def test_a_ray_that_dies_with_its_sweep_is_not_what_ended_it() -> None:
    """Ray's processes end as soon as the one that started them has; the parent may see theirs first."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    ray = subprocess.Popen(["true"])
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"watch\n")
    seen = guard.Guard(child, reading)
    seen._watched["gcs_server"] = psutil.Process(ray.pid)
    ray.wait()
    seen._look()
    assert seen._lost is None
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
