"""How long a killed sweep takes to train again, and what of its work is done twice: `python -m benchmarks.resume`."""

from __future__ import annotations

import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer
from rich.console import Console
from rich.table import Table

from sweep.records.log import RecordLog, read_log
from sweep.records.owner import LOCK
from trainables.checkpoints import Checkpoint, write_checkpoint

SETTINGS = (
    "search.sampler=random",
    "search.scheduler=none",
    "search.strategies=[lora]",
    "data.num_patients=200",
    "training.checkpoint_every_s=0",
    "evaluation.images_per_condition=4",
    "evaluation.num_steps=2",
)
PATIENCE_S = 600.0
POLL_S = 0.05
EPOCHS_A_KILL = 4
"""Of the training: a kill comes within two epochs after the first of its process."""


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """One kill, in seconds.

    Attributes:
        resumed_s: from the kill to the next step, by `--resume` at once.
        trained_s: what its process had trained until the kill.
        repeated_s: what of it is trained again.
        epoch_s: the longest epoch up to the first after it; a checkpoint is written after each.
    """

    resumed_s: float
    trained_s: float
    repeated_s: float
    epoch_s: float


def main(
    kills: Annotated[int, typer.Option(min=1, help="At random moments, of one sweep.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    of: Annotated[Path | None, typer.Option(help="A run whose share for records and checkpoints is told.")] = None,
    until_s: Annotated[float, typer.Option(min=0, help="Kill no more after so many seconds.")] = 1e9,
    python: Annotated[str, typer.Option(help="What starts Python; seconds are those of its imports too.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Kill a sweep of one trial while it trains, again and again, and go on with it.

    Example: python -m benchmarks.resume --kills 3 --of runs/demo
    """
    with tempfile.TemporaryDirectory() as folder:
        sweep = KilledSweep(Path(folder) / "run", tuple(shlex.split(python)) or (sys.executable,))
        fresh_s, measured = sweep.resumptions(kills, random.Random(seed), until_s)
        costs = {"record_s": record_cost(Path(folder)), "checkpoint_s": checkpoint_cost(Path(folder))}
    shares = {} if of is None else shares_of(of, **costs)
    if as_json:
        print(
            json.dumps(
                {"fresh_s": fresh_s, "kills": [asdict(resumption) for resumption in measured], **costs, **shares},
                indent=2,
            )
        )
        return
    console = Console()
    console.print(table_of(fresh_s, measured))
    for name, value in {**costs, **shares}.items():
        console.print(f"{name} {value:.4g}")


@dataclass(frozen=True)
class KilledSweep:
    """A sweep of one trial.

    Args:
        out: its run directory.
        python: what starts Python.
    """

    out: Path
    python: tuple[str, ...]

    def resumptions(self, kills: int, chance: random.Random, until_s: float) -> tuple[float, list[Resumption]]:
        """Start it, kill its process somewhere in the two epochs after its first, let it go on, and so forth.

        Args:
            kills: at most.
            chance: what is random.
            until_s: seconds from now, after which it is killed no more.

        Returns:
            Seconds from the first command to the first step, and what came of each kill.
        """
        began_s, measured = time.time(), list[Resumption]()
        command, reports = self._start(EPOCHS_A_KILL * (kills + 1)), list[dict[str, Any]]()
        fresh_s = killed_s = trained_s = 0.0
        try:
            for number in range(kills + 1):
                before, reports = reports, self._wait_for(len(reports) + 1, command)
                first_s = began_of(reports[len(before)])
                if number == 0:
                    fresh_s = first_s - began_s
                else:
                    measured.append(resumption(before, reports[len(before)], killed_s, trained_s))
                if number == kills or time.time() - began_s > until_s:
                    break
                time.sleep(chance.uniform(0, 2 * reports[-1]["epoch_s"]))
                psutil.Process(json.loads((self.out / LOCK).read_text())["pid"]).kill()
                killed_s = time.time()
                trained_s = killed_s - first_s
                command.wait(PATIENCE_S)
                reports, command = read_reports(self.out), self._start()
        finally:
            command.terminate()
            command.wait(PATIENCE_S)
        return fresh_s, measured

    def _start(self, num_epochs: int = 0) -> subprocess.Popen[bytes]:
        """Begin it with so many epochs, or resume it."""
        settings = [*SETTINGS, f"training.num_epochs={num_epochs}"]
        begun = ["--out", str(self.out), "--num-trials", "1", *(f"--set={setting}" for setting in settings)]
        given = begun if num_epochs else ["--resume", str(self.out)]
        command = [*self.python, "-m", "sweep.run", *given]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))

    def _wait_for(self, count: int, command: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """Wait until it has reported so many epochs."""
        deadline = time.monotonic() + PATIENCE_S
        while len(reports := read_reports(self.out)) < count:
            if time.monotonic() > deadline or command.poll() is not None:
                raise RuntimeError(f"`sweep` must report {count} epochs, but got {len(reports)}. Look at {self.out}.")
            time.sleep(POLL_S)
        return reports


def resumption(before: list[dict[str, Any]], after: dict[str, Any], killed_s: float, trained_s: float) -> Resumption:
    """What a kill cost, by the reports that stood before it and the first one after."""
    latest = {report["epoch"]: report["epoch_s"] for report in before}
    again = [epoch_s for epoch, epoch_s in latest.items() if epoch >= after["epoch"]]
    return Resumption(
        resumed_s=began_of(after) - killed_s,
        trained_s=trained_s,
        repeated_s=killed_s - before[-1]["at_s"] + sum(again),
        epoch_s=max(report["epoch_s"] for report in (*before, after)),
    )


def read_reports(out: Path) -> list[dict[str, Any]]:
    """Epochs that were reported, with when that was."""
    if not (out / "events.log").exists():
        return []
    records = [record for record in read_log(out / "events.log").records if record["event"] == "report"]
    return [{**record["metrics"], "at_s": _seconds(record)} for record in records]


def _seconds(record: dict[str, Any]) -> float:
    return datetime.fromisoformat(record["time"]).timestamp()


def began_of(report: dict[str, Any]) -> float:
    """When the first step of a reported epoch began."""
    return float(report["at_s"] - report["epoch_s"] - report.get("evaluation_s", 0.0))


def record_cost(folder: Path) -> float:
    """Seconds that a record takes to be on the disk."""
    log, values = RecordLog.create(folder / "events.log"), {"epoch": 1, "loss": 0.5, "fid_mini": 1.0}
    seconds = median_of(lambda number: log.append("report", {"trial_id": "a", "metrics": values}), 200)
    log.close()
    return seconds


def checkpoint_cost(folder: Path) -> float:
    """Likewise of the demo's largest checkpoint: weights of the mini base's U-Net and both of their moments."""
    tensors = {name: torch.zeros(2_725_956) for name in ("weights", "first", "second")}
    return median_of(lambda number: write_checkpoint(folder, Checkpoint(tensors=tensors, facts={})), 20)


def median_of(act: Callable[[int], None], count: int) -> float:
    """Seconds that something takes, of so many times."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        act(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def shares_of(out: Path, *, record_s: float, checkpoint_s: float) -> dict[str, float]:
    """What records and checkpoints took of a sweep's time, at the most: a checkpoint every interval of every trial."""
    records = read_log(out / "events.log").records
    interval_s = json.loads((out / "config.json").read_text())["training"]["checkpoint_every_s"]
    spent: dict[str, float] = {}
    for record in records:
        if record["event"] == "report":
            name, metrics = record["trial_id"], record["metrics"]
            spent[name] = spent.get(name, 0.0) + metrics["epoch_s"] + metrics.get("evaluation_s", 0.0)
    checkpoints = sum(int(each / interval_s) for each in spent.values())
    wall_s = _seconds(records[-1]) - _seconds(records[0])
    return {
        "sweep_s": wall_s,
        "records": len(records),
        "checkpoints": checkpoints,
        "share_of_records": len(records) * record_s / wall_s,
        "share_of_checkpoints": checkpoints * checkpoint_s / wall_s,
        "share_of_a_checkpoint_each_interval": checkpoint_s / interval_s,
    }


def table_of(fresh_s: float, measured: list[Resumption]) -> Table:
    """A row a kill."""
    table = Table("resumed s", "trained s", "trained again s", "of epochs")
    for resumption in measured:
        cells = (resumption.resumed_s, resumption.trained_s, resumption.repeated_s)
        table.add_row(*(f"{cell:.1f}" for cell in cells), f"{resumption.repeated_s / resumption.epoch_s:.2f}")
    share = sum(resumption.repeated_s for resumption in measured) / sum(resumption.trained_s for resumption in measured)
    table.caption = (
        f"A fresh start took {fresh_s:.1f} s to its first step; of all that was trained, {share:.0%} was trained again."
    )
    return table


if __name__ == "__main__":
    typer.run(main)
