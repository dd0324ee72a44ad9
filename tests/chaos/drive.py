"""Kills sweeps at seeded random moments, resumes them, and checks that nothing is lost: `python tests/chaos/drive.py`.

One sweep runs to its end undisturbed; every other is broken once, goes on by `--resume` until it ends, and must come to
the same trials with the same numbers. What comes of each is written at once; the same folder goes on where it was.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

# The second is that of warm_python, whose folders have the packages' names.
sys.path.extend(str(Path(__file__).resolve().parents[level]) for level in (2, 1))

from broken_sweeps import SETTINGS, Sweep, all_processes_below, kill, wait_until
from checking import UnsoundError, compare, finished, require_nothing_left, shared_memory
from cluster import one_node
from faults import ENDING, JOINING, KINDS, OF_A_CLUSTER, ROUNDING, Act, TooLateError, surroundings

from sweep.records.log import read_log

ATTEMPTS = 4


@dataclass
class Outcome:
    """What came of a broken sweep."""

    kind: str
    seed: int
    has_joined: bool = False
    """A cluster that lives on; else it has a Ray of its own."""
    moment: str = ""
    exit_code: int | None = None
    """Of the sweep that was broken."""
    resumes: int = 0
    retries: int = 0
    """Of trials, as the log has them."""
    end_s: float = 0.0
    """Seconds from the fault to the end of the sweep that was broken."""
    wall_s: float = 0.0
    fault: str = ""


def broken(outcome: Outcome, folder: Path, reference: Path, address: str) -> None:
    """Break a sweep once, let it go on, and compare it with the undisturbed one.

    Args:
        outcome: says what breaks it, and is filled in.
        folder: where its run directory is made.
        reference: run directory of the undisturbed one.
        address: of the cluster that it may join.
    """
    kind, seed = outcome.kind, outcome.seed
    chance, started = random.Random(f"{kind}-{seed}"), time.monotonic()
    random.seed(f"{kind}-{seed}")
    memory, total = shared_memory(), len(read_log(reference / "events.log").records)
    out, joined = folder / f"{kind}-{seed}", address if outcome.has_joined else None
    try:
        with surroundings(kind, out, chance, total=total, address=joined) as (sweep, act):
            try:
                _break(sweep, act, outcome, chance, total)
                before = finished(sweep.out)
                _go_on(sweep, outcome)
                outcome.retries = sum(record["event"] == "retry" for record in sweep.log().records)
                compare(out, reference, before, ROUNDING.get(kind, 0.0))
                require_nothing_left(sweep.left, memory)
            finally:
                kill(*sweep.left())
    except (UnsoundError, subprocess.SubprocessError, psutil.Error, OSError, ValueError) as error:
        outcome.fault = f"{type(error).__name__}: {error}"
    outcome.wall_s = time.monotonic() - started


def _go_on(sweep: Sweep, outcome: Outcome) -> None:
    """Start it again until it ends well."""
    code = outcome.exit_code
    while code != 0 and outcome.resumes < ATTEMPTS:
        outcome.resumes += 1
        code = sweep.wait(sweep.start(again=True))
    if code != 0:
        raise UnsoundError(f"it does not go on: {sweep.said()[-600:]}")


def _break(sweep: Sweep, act: Act, outcome: Outcome, chance: random.Random, total: int) -> None:
    """Start a sweep, and act once its log has a random number of records, and a moment later."""
    command, records, delay_s = sweep.start(), chance.randrange(total), chance.uniform(0, 2)
    outcome.moment = f"{records} of {total} records + {delay_s:.1f} s"
    try:
        has_come = wait_until(lambda: sweep.has_owner() and len(sweep.log().records) >= records, command, "its moment")
    except UnsoundError:
        sweep.abandon(command)
        raise
    time.sleep(delay_s)
    acted_s = time.monotonic()
    try:
        if not has_come or command.poll() is not None:
            raise TooLateError
        act(sweep, command)
        has_ended = False
    except TooLateError:
        outcome.moment += "; it had ended"
        has_ended = True
    outcome.exit_code = sweep.wait(command)
    outcome.end_s = time.monotonic() - acted_s
    if outcome.exit_code == 0 and outcome.kind in ENDING and not has_ended:
        raise UnsoundError("it was to be broken, and was not")


def table_of(outcomes: list[Outcome]) -> str:
    """A row a broken sweep, in Markdown."""
    names = (
        "kind",
        "seed",
        "Ray",
        "broken at",
        "exit code",
        "ended after s",
        "resumes",
        "retries",
        "wall s",
        "outcome",
    )
    rows = [
        (
            outcome.kind,
            outcome.seed,
            "several nodes" if outcome.kind in OF_A_CLUSTER else "joined" if outcome.has_joined else "own",
            outcome.moment,
            outcome.exit_code,
            f"{outcome.end_s:.0f}",
            outcome.resumes,
            outcome.retries,
            f"{outcome.wall_s:.0f}",
            " ".join(outcome.fault.split()) or "sound",
        )
        for outcome in outcomes
    ]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (names, ["---"] * len(names), *rows))


def undisturbed(folder: Path, address: str | None) -> Path:
    """The run directory of the sweep that nothing breaks, which is made where it is not there.

    Args:
        folder: where it lies.
        address: of the cluster that it joins; by default it has a Ray of its own.
    """
    sweep = Sweep(folder / "undisturbed", {} if address is None else {"compute.address": address})
    if not (sweep.out / "report.html").exists() and (code := sweep.wait(sweep.start(again=True))):
        raise UnsoundError(f"the undisturbed sweep ends with {code}: {sweep.said()[-600:]}")
    return sweep.out


def main(
    to: Annotated[Path, typer.Option(help="Where the outcomes stand, and the undisturbed sweep.")] = Path("runs/chaos"),
    kinds: Annotated[str, typer.Option(help="Of what to break, separated by commas.")] = ",".join(KINDS),
    seeds: Annotated[int, typer.Option(min=1, help="How often each.")] = 4,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    num_trials: Annotated[int, typer.Option(min=1, help="Trials of each sweep.")] = 3,
    until_s: Annotated[float, typer.Option(min=0, help="Begin no further one after so many seconds.")] = 1e9,
    address: Annotated[str | None, typer.Option(help="Of a cluster that is there, which all sweeps join.")] = None,
) -> None:
    """Break sweeps and check what comes of them; the exit code is 1 where one was not sound.

    Example: python tests/chaos/drive.py --kinds driver,raylet --seeds 2
    """
    if address is not None and (alone := set(kinds.split(",")) - JOINING):
        raise typer.BadParameter(f"`--address` must stand beside kinds that join a cluster, but got {sorted(alone)}.")
    SETTINGS["search.num_trials"] = str(num_trials)
    folder, started = to.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "outcomes.jsonl"
    outcomes = [Outcome(**json.loads(line)) for line in written.read_text().splitlines()] if written.exists() else []
    done = {(outcome.kind, outcome.seed) for outcome in outcomes}
    left = [(kind, seed) for seed in range(first, first + seeds) for kind in kinds.split(",")]
    with all_processes_below(), nullcontext(address) if address else one_node() as joined:
        reference = undisturbed(folder, address)
        for kind, seed in (pair for pair in left if pair not in done):
            if time.monotonic() - started > until_s:
                break
            shutil.rmtree(folder / f"{kind}-{seed}", ignore_errors=True)
            outcomes.append(Outcome(kind, seed, has_joined=kind in JOINING and (seed % 2 == 0 or address is not None)))
            broken(outcomes[-1], folder, reference, joined)
            with written.open("a") as file:
                print(json.dumps(vars(outcomes[-1])), file=file)
            print(json.dumps(vars(outcomes[-1])), flush=True)
            if not outcomes[-1].fault:
                for left_over in folder.glob(f"{kind}-{seed}*"):
                    shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    print(table_of(outcomes))
    raise typer.Exit(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    typer.run(main)
