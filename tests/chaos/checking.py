"""What must be true of a sweep that was broken and went on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from sweep.records.log import read_log

OF_MACHINE = ("_s", "_gib", "_memory", "num_workers")
"""Endings of columns that hold times, memory and how many workers there was room for: they tell of machines, not of trials."""
OF_FRONT = ("pareto", "knee", "front_probability")
"""Columns that tell of machines as well where an objective is of seconds."""
CLEARED_S = 20.0


class UnsoundError(AssertionError):
    """A sweep lost or changed something."""


def finished(out: Path) -> dict[str, str]:
    """What a broken sweep leaves that must never change: the log, and adapters of ended trials, by their hashes."""
    if not (out / "events.log").exists():
        return {}
    contents = read_log(out / "events.log")
    data = (out / "events.log").read_bytes()[: contents.sound_bytes]
    ended = {
        record["trial_id"] for record in contents.records if record["event"] == "end" and record["kind"] == "completed"
    }
    files = [file for name in ended for file in (out / "trials" / name / "adapter").rglob("*") if file.is_file()]
    return {"events.log": f"{len(data)} {_hash(data)}", **{str(file): _hash(file.read_bytes()) for file in files}}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def compare(out: Path, reference: Path, states: Iterable[Mapping[str, str]], rounding: float = 0.0) -> None:
    """Check a sweep that went on.

    Args:
        out: its run directory.
        reference: of the one that was not disturbed.
        states: what it held of finished trials each time that it was broken.
        rounding: share by which numbers may differ.

    Raises:
        UnsoundError: something is lost, doubled or changed.
    """
    for name, state in (item for before in states for item in before.items()):
        if name == "events.log":
            length = int(state.split()[0])
            if f"{length} {_hash((out / name).read_bytes()[:length])}" != state:
                raise UnsoundError("records that were on the disk have changed")
        elif not Path(name).is_file() or _hash(Path(name).read_bytes()) != state:
            raise UnsoundError(f"{name} of a finished trial has changed")
    objectives = json.loads((reference / "config.json").read_text())["objectives"]
    left_out = OF_FRONT if any(name.endswith(OF_MACHINE) for name in objectives) else ()
    for name, keys in (("trials.parquet", ["trial_id"]), ("results.parquet", ["trial_id", "epoch"])):
        table, wanted = (_numbers(folder / name, keys, left_out) for folder in (out, reference))
        _require_equal(name, table, wanted, rounding)
    _require_runs(out)


def _numbers(path: Path, keys: list[str], left_out: Collection[str] = ()) -> pd.DataFrame:
    """A table by its keys, without the columns that tell of machines."""
    table = pd.read_parquet(path).sort_values(keys).set_index(keys)
    return table.drop(columns=[name for name in table if str(name).endswith(OF_MACHINE) or name in left_out])


def _require_equal(name: str, table: pd.DataFrame, wanted: pd.DataFrame, rounding: float = 0.0) -> None:
    if list(table.index) != list(wanted.index) or set(table) != set(wanted):
        raise UnsoundError(f"{name} has rows {list(table.index)} where {list(wanted.index)} belong")
    try:
        how = {"rtol": rounding} if rounding else {"check_exact": True}
        pd.testing.assert_frame_equal(table[list(wanted)], wanted, check_dtype=False, **how)
    except AssertionError as error:
        raise UnsoundError(f"{name}: {error}") from error


def _require_runs(out: Path) -> None:
    """Every trial has one run in MLflow, and none is open."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    names = sorted(run.data.tags.get("trial_id", "parent") for run in runs)
    if names != sorted([*pd.read_parquet(out / "trials.parquet")["trial_id"], "parent"]):
        raise UnsoundError(f"MLflow has the runs {names}")
    if {run.info.status for run in runs} != {"FINISHED"}:
        raise UnsoundError(f"MLflow has runs that are {sorted({run.info.status for run in runs})}")


def require_nothing_left(processes: Callable[[], list[psutil.Process]], memory: set[str]) -> None:
    """Check that a sweep has ended with all that it had.

    Args:
        processes: gives those that may not be there.
        memory: names of shared memory that was there before.

    Raises:
        UnsoundError: a process or shared memory is left.
    """
    deadline = time.monotonic() + CLEARED_S
    while (left := processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    if left:
        raise UnsoundError(f"processes are left: {[_name(process) for process in left]}")
    shared = {name for name in shared_memory() - memory if not _is_mapped(name)}
    if shared:
        raise UnsoundError(f"shared memory is left: {sorted(shared)}")


def _name(process: psutil.Process) -> str:
    """What it runs, and its number; Ray's workers fill up what their command line was with blanks."""
    with suppress(psutil.Error):
        return f"{' '.join(process.cmdline()).strip()[-80:]} ({process.pid}, {process.status()})"
    return str(process.pid)


def _is_mapped(name: str) -> bool:
    """Whether a process uses shared memory: other programs run on the machine."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f"/dev/shm/{name}" in maps.read_text():
                return True
    return False


def shared_memory() -> set[str]:
    """Names of what Ray and torch keep in shared memory."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if "plasma" in name or name.startswith("torch_")}
