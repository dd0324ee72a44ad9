"""How long a killed sweep takes to train again, and what of its work is done twice: `python -m benchmarks.resume`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from sweep.records.log import RecordLog, read_log

SETTINGS = (
    "search.sampler=random",
    "data.num_patients=60",
    "training.checkpoint_every_s=0",
    "evaluation.images_per_condition=4",
    "evaluation.num_steps=2",
)
PATIENCE_S = 600.0
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """One kill, in seconds.

    Attributes:
        fresh_s: from the command to the first step of the first trial.
        resumed_s: from the kill to the next step, by `--resume` at once.
        trained_s: what had been trained until the kill.
        repeated_s: what of it is trained again: since the last checkpoint.
    """

    fresh_s: float
    resumed_s: float
    trained_s: float
    repeated_s: float


def main(
    kills: Annotated[int, typer.Option(min=1, help="At random moments, one sweep each.")] = 20,
    num_epochs: Annotated[int, typer.Option(min=2, help="Epochs of a trial, each with a checkpoint.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Kill sweeps of one trial while it trains, and go on with them.

    Example: python -m benchmarks.resume --kills 3
    """
    chance, measured = random.Random(seed), list[Resumption]()
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as folder:
            measured.append(resumption(Path(folder) / "run", num_epochs, chance))
    append_s = append_cost()
    if as_json:
        print(json.dumps({"kills": [asdict(one) for one in measured], "append_s": append_s}, indent=2))
    else:
        Console().print(table_of(measured, append_s))


def resumption(out: Path, num_epochs: int, chance: random.Random) -> Resumption:
    """Start a sweep, kill its process somewhere after its first epoch, and let it go on until its next."""
    epoch = chance.randrange(1, num_epochs)
    command, began_s = start("--out", out, num_epochs), time.time()
    reports = reports_of(out, epoch, command)
    time.sleep(chance.uniform(0, reports[-1]["epoch_s"]))
    psutil.Process(command.pid).children()[0].kill()
    killed_s = time.time()
    command.wait(PATIENCE_S)
    resumed, restarted_s = start("--resume", out, num_epochs), time.time()
    after = reports_of(out, len(read_reports(out)) + 1, resumed)
    resumed.terminate()
    resumed.wait(PATIENCE_S)
    trained_s = sum(one["epoch_s"] for one in reports) + killed_s - reports[-1]["at_s"]
    return Resumption(
        fresh_s=began_of(reports[0]) - began_s,
        resumed_s=began_of(after[-1]) - restarted_s,
        trained_s=trained_s,
        repeated_s=killed_s - reports[-1]["at_s"],
    )


def start(how: str, out: Path, num_epochs: int) -> subprocess.Popen[bytes]:
    """Begin or resume a sweep of one trial."""
    settings = [*SETTINGS, f"training.num_epochs={num_epochs}", f"training.evaluate_every_epochs={num_epochs}"]
    given = [] if how == "--resume" else ["--num-trials", "1", *(f"--set={one}" for one in settings)]
    command = [sys.executable, "-m", "sweep.run", how, str(out), *given]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))


def reports_of(out: Path, count: int, command: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Wait until a sweep has reported so many epochs."""
    deadline = time.monotonic() + PATIENCE_S
    while len(found := read_reports(out)) < count:
        if time.monotonic() > deadline or command.poll() not in (None, 0):
            raise RuntimeError(f"`sweep` must report {count} epochs, but got {len(found)}. Look at {out}.")
        time.sleep(POLL_S)
    return found


def read_reports(out: Path) -> list[dict[str, Any]]:
    """Epochs that were reported, with when that was."""
    if not (out / "events.log").exists():
        return []
    records = [one for one in read_log(out / "events.log").records if one["event"] == "report"]
    return [{**one["metrics"], "at_s": datetime.fromisoformat(one["time"]).timestamp()} for one in records]


def began_of(report: dict[str, Any]) -> float:
    """When the first step of a reported epoch began."""
    return float(report["at_s"] - report["epoch_s"] - report.get("evaluation_s", 0.0))


def append_cost(count: int = 200) -> float:
    """Seconds that a record takes to be on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        log, started = RecordLog.create(Path(folder) / "events.log"), time.perf_counter()
        for number in range(count):
            log.append("report", {"trial_id": "a", "metrics": {"epoch": number, "loss": 0.5, "fid_mini": 1.0}})
        log.close()
        return (time.perf_counter() - started) / count


def table_of(measured: list[Resumption], append_s: float) -> Table:
    """A row a kill."""
    table = Table("fresh start s", "resumed s", "trained s", "trained again s", "share")
    for one in measured:
        share = one.repeated_s / one.trained_s
        cells = (one.fresh_s, one.resumed_s, one.trained_s, one.repeated_s)
        table.add_row(*(f"{cell:.1f}" for cell in cells), f"{share:.0%}")
    table.caption = f"A record is on the disk in {1000 * append_s:.1f} ms."
    return table


if __name__ == "__main__":
    typer.run(main)
