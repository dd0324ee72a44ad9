"""Kills sweeps at seeded random moments, resumes them, and checks that nothing is lost: `python tests/chaos/drive.py`.

One sweep runs to its end undisturbed; every other is broken once, goes on by `--resume` until it ends, and must come to
the same trials with the same numbers. Configurations are drawn at random by the number of the trial, as the measured
seconds of an epoch would otherwise feed the search.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
from checking import UnsoundError, compare, finished, lives, require_nothing_left, shared_memory
from rich.console import Console
from rich.table import Table

from sweep.records.log import LogContents, read_log

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETTINGS = {
    "search.num_trials": "4",
    "search.sampler": "random",
    "data.num_patients": "60",
    "training.num_epochs": "3",
    "training.checkpoint_every_s": "0",
    "training.evaluate_every_epochs": "1",
    "evaluation.images_per_condition": "4",
    "evaluation.num_steps": "2",
}
PATIENCE_S = 600.0
STOPPED_S = 30.0
ATTEMPTS = 4


@dataclass
class Sweep:
    """A sweep that is started by the command, as a user does.

    Args:
        out: the run directory.
        settings: over the driver's own.
        environment: of its processes.
    """

    out: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seen: set[psutil.Process] = field(default_factory=set)
    """All processes that it was seen to have; Ray's workers overwrite what else would tell whose they are."""

    def start(self, *, resume: bool = False) -> subprocess.Popen[str]:
        """Begin it, or go on with it."""
        settings = [f"--set={key}={value}" for key, value in {**SETTINGS, **self.settings}.items()]
        where = ["--resume", str(self.out)] if resume else ["--out", str(self.out), *settings]
        said = self.out.with_suffix(".log").open("a")
        environment = {**os.environ, **({} if resume else self.environment)}
        command = [sys.executable, "-m", "sweep.run", *where]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said, text=True)

    def processes(self, command: subprocess.Popen[str], *parts: str) -> list[psutil.Process]:
        """Those that run now and whose command line holds one of the parts, or all."""
        found = []
        with suppress(psutil.Error):
            command_itself = psutil.Process(command.pid)
            self.seen.update([command_itself, *command_itself.children(recursive=True)])
        for process in self.seen:
            with suppress(psutil.Error):
                if lives(process) and (not parts or any(part in " ".join(process.cmdline()) for part in parts)):
                    found.append(process)
        return found

    def wait(self, command: subprocess.Popen[str]) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while (code := command.poll()) is None:
            if time.monotonic() > deadline:
                kill(*self.processes(command))
                raise UnsoundError(f"it does not end: {self.said()[-400:]}")
            self.processes(command)
            time.sleep(0.3)
        return code

    def log(self) -> LogContents:
        """Its events so far."""
        path = self.out / "events.log"
        return read_log(path) if path.exists() else LogContents(records=[], sound_bytes=0, torn_bytes=0)

    def said(self) -> str:
        """What it has printed."""
        return self.out.with_suffix(".log").read_text()


def driver_of(command: subprocess.Popen[str]) -> psutil.Process:
    """The process that runs the sweep, the child of the command's own."""
    return psutil.Process(command.pid).children()[0]


def kill(*processes: psutil.Process) -> None:
    """End processes as a machine's death does."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_driver(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    kill(driver_of(command))


def kill_all(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    """The whole machine goes, the small parent included."""
    kill(*sweep.processes(command))


def kill_trial(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    kill(*sweep.processes(command, "ray::ImplicitFunc", "ray::run_trial"))


def kill_evaluation(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    kill(*sweep.processes(command, "ray::AdapterScorer"))


def kill_raylet(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    kill(*sweep.processes(command, "/raylet/raylet"))


def kill_gcs(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    kill(*sweep.processes(command, "gcs_server"))


def suspend(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    """Stop the driver for half a minute."""
    driver = driver_of(command)
    driver.suspend()
    time.sleep(STOPPED_S)
    driver.resume()


def interrupt(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    """What a batch system sends first."""
    command.send_signal(random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))


def nothing(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    """The fault is in the sweep's own processes."""


KINDS: Mapping[str, Callable[[Sweep, subprocess.Popen[str]], None]] = {
    "driver": kill_driver,
    "machine": kill_all,
    "trial": kill_trial,
    "evaluation": kill_evaluation,
    "raylet": kill_raylet,
    "gcs": kill_gcs,
    "stop": suspend,
    "signal": interrupt,
    "eio": nothing,
    "rename": nothing,
    "disk": nothing,
    "node": nothing,
}


@dataclass
class Outcome:
    """What came of a broken sweep."""

    kind: str
    seed: int
    moment: str = ""
    exit_code: int | None = None
    resumes: int = 0
    wall_s: float = 0.0
    fault: str = ""


def broken(kind: str, seed: int, folder: Path, reference: Path) -> Outcome:
    """Break a sweep once, let it go on, and compare it with the undisturbed one."""
    outcome, chance, started = Outcome(kind, seed), random.Random(f"{kind}-{seed}"), time.monotonic()
    random.seed(f"{kind}-{seed}")
    memory = shared_memory()
    total = len(read_log(reference / "events.log").records)
    out = folder / f"{kind}-{seed}"
    try:
        with surroundings(kind, out, chance, total) as (sweep, act):
            _break(sweep, act, outcome, chance, total)
            before = finished(sweep.out)
            while outcome.exit_code != 0 and outcome.resumes < ATTEMPTS:
                outcome.resumes += 1
                outcome.exit_code = sweep.wait(sweep.start(resume=True))
            if outcome.exit_code != 0:
                raise UnsoundError(f"it does not go on: {sweep.said()[-400:]}")
            compare(out, reference, before)
            require_nothing_left(sweep.seen, memory)
    except (UnsoundError, subprocess.SubprocessError, psutil.Error, OSError, ValueError) as error:
        outcome.fault = f"{type(error).__name__}: {error}"
    outcome.wall_s = time.monotonic() - started
    return outcome


def _break(
    sweep: Sweep,
    act: Callable[[Sweep, subprocess.Popen[str]], None],
    outcome: Outcome,
    chance: random.Random,
    total: int,
) -> None:
    """Start a sweep, and act once its log has a random number of records, and a moment later."""
    command, records, delay_s = sweep.start(), chance.randrange(total), chance.uniform(0, 2)
    outcome.moment = f"{records} of {total} records + {delay_s:.1f} s"
    deadline = time.monotonic() + PATIENCE_S
    while command.poll() is None and len(sweep.log().records) < records:
        if time.monotonic() > deadline:
            kill(*sweep.processes(command))
            raise UnsoundError("it does not come to its moment")
        time.sleep(0.1)
    time.sleep(delay_s)
    sweep.processes(command)
    if command.poll() is None:
        act(sweep, command)
    outcome.exit_code = sweep.wait(command)


@contextmanager
def surroundings(
    kind: str, out: Path, chance: random.Random, total: int
) -> Iterator[tuple[Sweep, Callable[[Sweep, subprocess.Popen[str]], None]]]:
    """The sweep that a kind of fault needs, and what breaks it."""
    if kind in ("eio", "rename"):
        number = chance.randrange(2, total) if kind == "eio" else chance.randrange(1, 8)
        faults = {"CHAOS_FAULT": f"{kind}:{number}", "CHAOS_ONCE": f"{out}.once", "CHAOS_OUT": str(out)}
        path = os.pathsep.join([str(HERE / "injected"), str(ROOT)])
        yield Sweep(out, environment={**faults, "PYTHONPATH": path}), nothing
    elif kind == "disk":
        with small_disk(out):
            yield Sweep(out), fill_disk
    elif kind == "node":
        from cluster import two_nodes  # only here is a cluster started, by Ray's own test tool

        with two_nodes() as (address, lose):
            yield Sweep(out, {"compute.address": address}), lambda sweep, command: lose()
    else:
        yield Sweep(out), KINDS[kind]


@contextmanager
def small_disk(out: Path) -> Iterator[None]:
    """A run directory on a disk of its own in memory; needs the right to mount."""
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(out)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(out)], check=False)


def fill_disk(sweep: Sweep, command: subprocess.Popen[str]) -> None:
    """Leave no byte until the sweep has ended; then there is room again."""
    with (sweep.out / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(2**16))
    with suppress(subprocess.TimeoutExpired):
        command.wait(60)
    (sweep.out / "filler").unlink()


def table_of(outcomes: list[Outcome]) -> Table:
    """A row a broken sweep."""
    table = Table("kind", "seed", "broken at", "exit code", "resumes", "wall s", "outcome")
    for one in outcomes:
        table.add_row(
            one.kind,
            str(one.seed),
            one.moment,
            str(one.exit_code),
            str(one.resumes),
            f"{one.wall_s:.0f}",
            one.fault or "sound",
        )
    return table


def main(
    kinds: Annotated[str, typer.Option(help="Of what to break, separated by commas.")] = ",".join(KINDS),
    seeds: Annotated[int, typer.Option(min=1, help="How often each.")] = 4,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    reference: Annotated[Path | None, typer.Option(help="The undisturbed sweep; made where it is not there.")] = None,
    num_trials: Annotated[int, typer.Option(min=1, help="Trials of each sweep.")] = 4,
    to: Annotated[Path | None, typer.Option(help="A JSON file for the outcomes, written after each.")] = None,
) -> None:
    """Break sweeps and check what comes of them; the exit code is 1 where one was not sound.

    Example: python tests/chaos/drive.py --kinds driver,raylet --seeds 2
    """
    SETTINGS["search.num_trials"] = str(num_trials)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    undisturbed, outcomes = Sweep((reference or folder / "undisturbed").resolve()), list[Outcome]()
    try:
        if not (undisturbed.out / "report.html").exists() and (code := undisturbed.wait(undisturbed.start())):
            raise UnsoundError(f"the undisturbed sweep ends with {code}: {undisturbed.said()[-400:]}")
        for seed in range(first, first + seeds):
            for kind in kinds.split(","):
                outcomes.append(broken(kind, seed, folder, undisturbed.out))
                print(json.dumps(vars(outcomes[-1])), flush=True)
                if to is not None:
                    to.write_text(json.dumps([vars(one) for one in outcomes], indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    Console(width=150).print(table_of(outcomes))
    raise typer.Exit(any(one.fault for one in outcomes))


if __name__ == "__main__":
    typer.run(main)
