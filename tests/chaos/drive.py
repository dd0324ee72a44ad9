"""Kills sweeps at seeded random moments, resumes them, and checks that nothing is lost: `python tests/chaos/drive.py`.

One sweep runs to its end undisturbed; every other is broken, goes on by `--resume` until it ends, and must come to the same
trials with the same numbers. What comes of each is written at once; the same folder goes on where it was.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
import yaml

# The second is that of warm_python, whose folders have the packages' names.
sys.path.extend(str(Path(__file__).resolve().parents[level]) for level in (2, 1))

from broken_sweeps import CONFIG, SETTINGS, Sweep, all_processes_below, below, kill, wait_until
from checking import UnsoundError, compare, finished, require_nothing_left, shared_memory
from cluster import one_node
from faults import ENDING, JOINING, KINDS, OF_A_CLUSTER, ROUNDING, TWO_OF, Act, TooLateError, surroundings

from sweep.records.log import read_log

ATTEMPTS = 4
TWICE = "+"
"""Between the kinds of what breaks one sweep twice."""


@dataclass
class Outcome:
    """What came of a broken sweep."""

    kind: str
    """One of `KINDS`, or two of `TWO_OF`, the second of which breaks the sweep when it has gone on after the first."""
    seed: int
    has_joined: bool = False
    """A cluster that lives on; else it has a Ray of its own."""
    moments: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    """Of the sweep, each time that it was broken."""
    resumes: int = 0
    retries: int = 0
    """Of trials, as the log has them."""
    end_s: float = 0.0
    """Seconds from the last fault to the end of the sweep that it broke."""
    wall_s: float = 0.0
    fault: str = ""


def broken(outcome: Outcome, folder: Path, reference: Path, address: str) -> None:
    """Break a sweep, let it go on, and compare it with the undisturbed one.

    Args:
        outcome: says what breaks it, and is filled in.
        folder: where its run directory is made.
        reference: run directory of the undisturbed one.
        address: of the cluster that it may join.
    """
    name, started = f"{outcome.kind}-{outcome.seed}", time.monotonic()
    chance, states = random.Random(name), list[dict[str, str]]()
    random.seed(name)
    memory, total, others = shared_memory(), num_records(reference), set(below())
    out, joined = folder / name, address if outcome.has_joined else None
    try:
        with ExitStack() as stack:
            for kind in outcome.kind.split(TWICE):
                sweep, act = stack.enter_context(surroundings(kind, out, chance, total=total, address=joined))
                sweep.others = others
                stack.callback(lambda sweep=sweep: kill(*sweep.left()))
                _break(sweep, act, outcome, kind, _moment(sweep, chance, total))
                states.append(finished(out))
            _go_on(sweep, outcome)
            outcome.retries = sum(record["event"] == "retry" for record in sweep.log().records)
            compare(out, reference, states, ROUNDING.get(outcome.kind, 0.0))
            require_nothing_left(sweep.left, memory)
    except (UnsoundError, subprocess.SubprocessError, psutil.Error, OSError, ValueError) as error:
        outcome.fault = f"{type(error).__name__}: {error}"
    outcome.wall_s = time.monotonic() - started


def num_records(reference: Path) -> int:
    """Of a sweep that ran to its end, without those of its being gone on with since."""
    return sum(record["event"] != "resume" for record in read_log(reference / "events.log").records)


def _go_on(sweep: Sweep, outcome: Outcome) -> None:
    """Start it again until it ends well."""
    code, attempts = outcome.exit_codes[-1], 0
    while code != 0 and attempts < ATTEMPTS:
        attempts += 1
        outcome.resumes += sweep.has_begun
        code = sweep.wait(sweep.start(with_faults=False))
    if code != 0:
        raise UnsoundError(f"it does not go on: {sweep.said()[-600:]}")


def _moment(sweep: Sweep, chance: random.Random, total: int) -> tuple[int, float]:
    """How many records the log has when the sweep is broken, at random of those to come, and how many seconds later that is."""
    so_far = len(sweep.log().records)
    return so_far + int(chance.random() * max(total - so_far, 1)), chance.uniform(0, 2)


def _break(sweep: Sweep, act: Act, outcome: Outcome, kind: str, moment: tuple[int, float]) -> None:
    """Start a sweep, or go on with it, and act at a moment."""
    outcome.resumes += sweep.has_begun
    num_remedies, (records, delay_s) = sweep.num_remedies(), moment
    outcome.moments.append(f"{records} records + {delay_s:.1f} s")
    command = sweep.start()
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
        outcome.moments[-1] += "; it had ended"
        has_ended = True
    outcome.exit_codes.append(sweep.wait(command))
    outcome.end_s = time.monotonic() - acted_s
    if outcome.exit_codes[-1] == 0:
        if kind in ENDING and not has_ended:
            raise UnsoundError("it was to be broken, and was not")
    elif kind in TWO_OF and sweep.has_begun and sweep.num_remedies() == num_remedies:
        raise UnsoundError(f"it does not say how it is gone on with: {sweep.said()[-600:]}")


def table_of(outcomes: list[Outcome]) -> str:
    """A row a broken sweep, in Markdown."""
    names = (
        "kind",
        "seed",
        "Ray",
        "broken at",
        "exit codes",
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
            ", ".join(outcome.moments),
            ", ".join(map(str, outcome.exit_codes)),
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
    if not (sweep.out / "report.html").exists() and (code := sweep.wait(sweep.start())):
        raise UnsoundError(f"the undisturbed sweep ends with {code}: {sweep.said()[-600:]}")
    return sweep.out


def main(
    to: Annotated[Path, typer.Option(help="Where the outcomes stand, and the undisturbed sweep.")] = Path("runs/chaos"),
    kinds: Annotated[
        str,
        typer.Option(
            help=f"Of what breaks sweeps, separated by commas; with a {TWICE} between two of {', '.join(sorted(TWO_OF))}, one sweep twice."
        ),
    ] = ",".join(KINDS),
    seeds: Annotated[int, typer.Option(min=1, help="How often each.")] = 4,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    num_trials: Annotated[int, typer.Option(min=1, help="Trials of each sweep.")] = 3,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Run directory of an undisturbed sweep, whose configuration all have, but that they keep checkpoints of each epoch."
        ),
    ] = None,
    until_s: Annotated[float, typer.Option(min=0, help="Begin no further one after so many seconds.")] = 1e9,
    address: Annotated[str | None, typer.Option(help="Of a cluster that is there, which all sweeps join.")] = None,
) -> None:
    """Break sweeps and check what comes of them; the exit code is 1 where one was not sound.

    Example: python tests/chaos/drive.py --kinds driver,raylet --seeds 2
    """
    for kind in kinds.split(","):
        if TWICE in kind and (not set(kind.split(TWICE)) <= TWO_OF or kind.count("rename") > 1):
            raise typer.BadParameter(f"`--kinds` must have {TWICE} between two of {sorted(TWO_OF)}, but got {kind!r}.")
    if address is not None and (alone := set(kinds.replace(TWICE, ",").split(",")) - JOINING):
        raise typer.BadParameter(f"`--address` must stand beside kinds that join a cluster, but got {sorted(alone)}.")
    folder, started = to.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    of_trials = yaml.safe_load(SETTINGS)
    of_trials["search"]["num_trials"] = num_trials
    (folder / CONFIG).write_text((reference / "config.json").read_text() if reference else yaml.safe_dump(of_trials))
    written = folder / "outcomes.jsonl"
    outcomes = [Outcome(**json.loads(line)) for line in written.read_text().splitlines()] if written.exists() else []
    done = {(outcome.kind, outcome.seed) for outcome in outcomes}
    left = [(kind, seed) for seed in range(first, first + seeds) for kind in kinds.split(",")]
    with all_processes_below(), nullcontext(address) if address else one_node() as joined:
        whole = reference.resolve() if reference else undisturbed(folder, address)
        for kind, seed in (pair for pair in left if pair not in done):
            if time.monotonic() - started > until_s:
                break
            shutil.rmtree(folder / f"{kind}-{seed}", ignore_errors=True)
            can_join = set(kind.split(TWICE)) <= JOINING
            outcomes.append(Outcome(kind, seed, has_joined=can_join and (seed % 2 == 0 or address is not None)))
            broken(outcomes[-1], folder, whole, joined)
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
