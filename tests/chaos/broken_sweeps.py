"""Sweeps that are started by the command, as a user does, in processes that can be found and ended."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import warm_python
from checking import UnsoundError

from sweep.records.log import LogContents, read_log
from sweep.records.owner import LOCK

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "sweep.yaml"
"""Beside the run directories of the sweeps that have it."""
SETTINGS = """
objectives: [fid, vendi, trainable_parameters]
search: {sampler: random, scheduler: none, strategies: [unet, lora, dora, bitfit]}
data: {num_patients: 40}
training: {num_epochs: 3, evaluate_every_epochs: 1}
evaluation: {images_per_condition: 2, num_steps: 1}
"""
"""Configurations are drawn at random by the number of the trial, and no objective is of measured seconds: all sweeps are alike."""
REMEDY = "Go on with: python -m sweep.run --resume"
EACH_EPOCH = "training.checkpoint_every_s=0"
PATIENCE_S = 240.0
OF_RAY = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::_AutoscalingCoordinatorActor")
"""Ray's own helpers, of which every node has one each, and the cluster one that outlives those who asked for it."""
PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def all_processes_below() -> Iterator[None]:
    """Have all that sweeps start stay below this process, also what outlives its parents; what is left is ended.

    Processes of the engine are forked from one that has imported what takes long: where tests have one, from theirs.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # else, beside other work, workers of clusters get next to nothing
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    is_there = warm_python.VARIABLE in os.environ
    with nullcontext() if is_there else warm_python.server(*warm_python.ENGINE):
        try:
            yield
        finally:
            kill(*below())


def below() -> list[psutil.Process]:
    """All living processes below this one, but the one from which others are forked."""
    this = psutil.Process()
    servers = [process for process in this.children() if "--serve" in _command_line(process)]
    return [process for process in this.children(recursive=True) if process not in servers and lives(process)]


def lives(process: psutil.Process) -> bool:
    """Whether a process runs still, or may."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _command_line(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def kill(*processes: psutil.Process) -> None:
    """End processes as a machine's death does."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@dataclass
class Sweep:
    """A sweep that is started by the command.

    Args:
        out: the run directory.
        settings: over the configuration beside it.
        environment: of its processes, where it is started with its faults.
        others: processes below this one that were there before it.
    """

    out: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    others: set[psutil.Process] = field(default_factory=lambda: set(below()))

    @property
    def has_joined(self) -> bool:
        """Whether it works on a cluster that lives on; else it has a Ray of its own."""
        return "compute.address" in self.settings

    @property
    def has_begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.out / "events.log").exists()

    def start(self, *, with_faults: bool = True) -> subprocess.Popen[str]:
        """Begin it, or go on with it where it has begun."""
        settings = [f"--set={key}={value}" for key, value in self.settings.items()]
        begin = ["--out", str(self.out), "--config", str(self.out.parent / CONFIG), f"--set={EACH_EPOCH}", *settings]
        where = ["--resume", str(self.out)] if self.has_begun else begin
        environment = {**os.environ, **(self.environment if with_faults else {})}
        with self.out.with_suffix(".log").open("a") as said:
            return subprocess.Popen(
                [*warm_python.command(), "-m", "sweep.run", *where],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                text=True,
            )

    def driver(self) -> psutil.Process:
        """The process that owns the run directory."""
        return psutil.Process(json.loads((self.out / LOCK).read_text())["pid"])

    def has_owner(self) -> bool:
        """Whether a process has begun to write to the run directory."""
        with suppress(OSError, ValueError, psutil.Error):
            return lives(self.driver())
        return False

    def processes(self, *programs: str) -> list[psutil.Process]:
        """Those that run now and whose program is one of these; Ray's workers overwrite what theirs is.

        A sweep with a Ray of its own has nothing to do with processes that were there before; a cluster may give it those.
        """
        started = below() if self.has_joined else set(below()) - self.others
        return [process for process in started if any(name in "".join(_command_line(process)[:1]) for name in programs)]

    def left(self) -> list[psutil.Process]:
        """Its processes; of a cluster that it has joined, those that still work for it."""
        if not self.has_joined:
            return self.processes("")
        resting = self.processes("ray::IDLE", *OF_RAY)
        working = [process for process in self.processes("ray::") if process not in resting]
        return [*working, *([self.driver()] if self.has_owner() else [])]

    def wait(self, command: subprocess.Popen[str]) -> int:
        """The command's exit code, once it has ended."""
        try:
            return command.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.abandon(command)
            raise UnsoundError(f"it does not end: {self.said()[-600:]}") from None

    def abandon(self, command: subprocess.Popen[str]) -> None:
        """End one that hangs."""
        with suppress(OSError, ValueError, psutil.Error):
            kill(self.driver())
        command.kill()

    def log(self) -> LogContents:
        """Its events so far."""
        path = self.out / "events.log"
        return read_log(path) if path.exists() else LogContents(records=[], sound_bytes=0, torn_bytes=0)

    def said(self) -> str:
        """What it has printed."""
        return self.out.with_suffix(".log").read_text()

    def num_remedies(self) -> int:
        """How often it has said how it is gone on with."""
        log = self.out.with_suffix(".log")
        return " ".join(log.read_text().split()).count(REMEDY) if log.exists() else 0


def wait_until(condition: Callable[[], bool], command: subprocess.Popen[str], what: str) -> bool:
    """Wait until something is so.

    Args:
        condition: asked again and again.
        command: of the sweep.
        what: is waited for, in words.

    Returns:
        False where the command has ended before.

    Raises:
        UnsoundError: it takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if command.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise UnsoundError(f"it does not come to {what}")
        time.sleep(0.1)
    return True
