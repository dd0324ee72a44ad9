"""The kinds of death that a sweep must survive: what breaks it, and the surroundings that it needs for that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from broken_sweeps import ROOT, Sweep, kill, wait_until

INJECTED = Path(__file__).resolve().parent / "injected"
STOPPED_S = 30.0
FULL_S = 60.0
Command = subprocess.Popen[str]
Act = Callable[[Sweep, Command], None]


class TooLateError(Exception):
    """The sweep had ended before it could be broken."""


def kill_driver(sweep: Sweep, command: Command) -> None:
    """The process that runs the sweep."""
    kill(sweep.driver())


def kill_all(sweep: Sweep, command: Command) -> None:
    """The whole machine goes, the small parent included."""
    kill(*sweep.left())


def killing(*programs: str) -> Act:
    """Kill the processes of some programs, as soon as there are some."""

    def act(sweep: Sweep, command: Command) -> None:
        victims: list[psutil.Process] = []

        def look() -> bool:
            victims[:] = sweep.processes(*programs)
            return bool(victims)

        wait_until(look, command, " or ".join(programs))
        kill(*victims)
        if not victims:
            raise TooLateError

    return act


def suspend(sweep: Sweep, command: Command) -> None:
    """Stop the driver for half a minute."""
    driver = sweep.driver()
    driver.suspend()
    time.sleep(STOPPED_S)
    driver.resume()


def interrupt(sweep: Sweep, command: Command) -> None:
    """What a batch system sends first."""
    command.send_signal(random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))


def nothing(sweep: Sweep, command: Command) -> None:
    """The fault is in the sweep's own processes."""


def fill_disk(sweep: Sweep, command: Command) -> None:
    """Leave no byte until the sweep has ended; then there is room again."""
    with (sweep.out / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(2**16))
    with suppress(subprocess.TimeoutExpired):
        command.wait(FULL_S)
    (sweep.out / "filler").unlink()


KINDS: Mapping[str, Act] = {
    "driver": kill_driver,
    "machine": kill_all,
    "trial": killing("ray::ImplicitFunc", "ray::run_trial"),
    "evaluation": killing("ray::AdapterScorer"),
    "raylet": killing("/raylet/raylet"),
    "gcs": killing("gcs_server"),
    "stop": suspend,
    "signal": interrupt,
    "eio": nothing,
    "rename": nothing,
    "disk": fill_disk,
    "node": nothing,
    "workers": nothing,
}
ENDING = frozenset({"driver", "machine", "signal"})
"""Kinds that no sweep outlives; without its Ray one may still end what its processes have in hand."""
TWO_OF = frozenset({"driver", "signal", "rename"})
"""Kinds of which two may break one sweep, with one death at a file: they end it, and leave its small parent, which says how it is
gone on with."""
ROUNDING = {"workers": 0.02}
"""Kinds that change how many workers share a training, and so how sums are rounded: by how much numbers may differ."""
OF_A_CLUSTER = frozenset({"node", "workers"})
"""Kinds that bring their own cluster: of the only node for trials, which is replaced, and of one of two for a group of workers."""
JOINING = frozenset(KINDS) - {"machine", "raylet", "gcs"} - OF_A_CLUSTER
"""Kinds whose sweeps may join a cluster that lives on; every second seed does."""


@contextmanager
def surroundings(
    kind: str, out: Path, chance: random.Random, *, total: int, address: str | None
) -> Iterator[tuple[Sweep, Act]]:
    """The sweep that a kind of fault needs, and what breaks it.

    Args:
        kind: a key of `KINDS`.
        out: the run directory.
        chance: what is random.
        total: records of a sweep that is not broken.
        address: of the cluster that it joins; by default it has a Ray of its own.
    """
    settings = {} if address is None else {"compute.address": address}
    if kind in ("eio", "rename"):
        number = chance.randrange(2, total) if kind == "eio" else chance.randrange(1, 8)
        faults = {"CHAOS_FAULT": f"{kind}:{number}", "CHAOS_ONCE": f"{out}.once", "CHAOS_OUT": str(out)}
        faults["CHAOS_FILE"] = chance.choice(["", "trials.parquet"])
        path = os.pathsep.join([str(INJECTED), str(ROOT)])
        yield Sweep(out, settings, environment={**faults, "PYTHONPATH": path}), KINDS[kind]
    elif kind == "disk":
        with small_disk(out):
            yield Sweep(out, settings), KINDS[kind]
    elif kind in OF_A_CLUSTER:
        from cluster import several_nodes  # imports Ray

        groups = {"compute.workers_per_trial": "[1, 2]", "compute.concurrent_trials": "1"}
        more, nodes = ({}, (1, 1)) if kind == "node" else (groups, (2, 2))
        with several_nodes(*nodes, replaced=kind == "node") as (address, lose):
            yield Sweep(out, {"compute.address": address, **more}), lambda sweep, command: lose()
    else:
        yield Sweep(out, settings), KINDS[kind]


@contextmanager
def small_disk(out: Path) -> Iterator[None]:
    """A run directory on a disk of its own in memory; needs the right to mount."""
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(out)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(out)], check=False)
