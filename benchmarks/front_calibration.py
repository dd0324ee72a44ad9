"""How often what the front says of its own certainty holds: on worlds whose true front is known.

A world has trials with true objectives, of which a front follows; what a sweep would see of it are values with noise, 64
resamples of films and patients and four epochs a trial. The probabilities are those of `analysis.front.finding`, beside
the plain share of noisy fronts that hold a trial, without the step towards the trials' mean.

    python -m benchmarks.front_calibration --json FILE
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from analysis.front.finding import find_front
from analysis.front.noise import Evidence, draw_noise
from analysis.front.objectives import BASE
from analysis.front.pareto import Direction, Objective, pareto_mask

Floats = NDArray[np.float64]
NUM_RESAMPLES: Final = 64
NUM_EPOCHS: Final = 4
PLAIN_DRAWS: Final = 100
BASE_FID, BASE_VENDI = 75.0, 2.0
OBJECTIVES: Final = (
    Objective("fid_mini", "min"),
    Objective("vendi_mini", "max"),
    Objective("trainable_parameters", "min"),
    Objective("epoch_s", "min"),
)


@dataclass(frozen=True, kw_only=True)
class World:
    """Trials as they are, and how what is measured of them is off.

    Attributes:
        values: float[n, 4], in the order of `OBJECTIVES`.
        individual: standard errors of FID and Vendi score that each trial has for itself.
        shared: those that all have together, by the patients that they are compared with.
        timing: relative error of seconds.
    """

    values: Floats
    individual: tuple[float, float]
    shared: tuple[float, float]
    timing: float


def strategies(rng: np.random.Generator, num_trials: int) -> World:
    """Four strategies of known sizes with ranks and learning rates, as the demo's; quality saturates with size."""
    size = rng.choice([1.5e4, 2e4, 8e4, 3e5, 2.7e6], num_trials) * rng.choice([1.0, 2.0, 4.0], num_trials)
    quality = 1 - np.exp(-np.log10(size / 5e3)) * rng.uniform(0.8, 1.6, num_trials)
    fid = 75 - 30 * quality + 4 * rng.standard_exponential(num_trials)
    vendi = 2 + 2.5 * quality + 0.3 * rng.standard_normal(num_trials)
    seconds = 4 + size / 1e6 + rng.uniform(0, 2, num_trials)
    error = rng.choice([0.5, 1.0, 2.0])
    return World(
        values=np.stack([fid, vendi, size, seconds], axis=1),
        individual=(error, 0.08 * error),
        shared=(2 * error, 0.05),
        timing=0.03,
    )


def sphere(rng: np.random.Generator, num_trials: int) -> World:
    """Objectives near a sphere around the ideal point, as in DTLZ2: most trials are on the front or close behind it."""
    place = np.abs(rng.standard_normal((num_trials, 4)))
    place *= (1 + 0.1 * rng.standard_exponential((num_trials, 1))) / np.linalg.norm(place, axis=1, keepdims=True)
    scaled = place * [40, -3, 1e6, 5] + [20, 6, 1e3, 2]
    return World(values=scaled, individual=(rng.choice([0.5, 2.0, 4.0]), 0.1), shared=(1.0, 0.1), timing=0.05)


def cloud(rng: np.random.Generator, num_trials: int) -> World:
    """Objectives that know nothing of each other, with noise of up to half of their spread."""
    scaled = rng.standard_normal((num_trials, 4)) * [8, 0.6, 1e5, 1] + [40, 4, 5e5, 8]
    share = rng.choice([0.1, 0.25, 0.5])
    return World(values=np.abs(scaled), individual=(8 * share, 0.6 * share), shared=(3.0, 0.2), timing=0.06)


FAMILIES: Final[dict[str, Callable[[np.random.Generator, int], World]]] = {
    "strategies": strategies,
    "sphere": sphere,
    "cloud": cloud,
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a sweep sees of a world."""

    trials: pd.DataFrame
    evidence: Evidence


def seen(world: World, rng: np.random.Generator) -> Seen:
    """Values with noise, and resamples and epochs with other noise of the same law."""
    names = [str(index) for index in range(len(world.values))]
    measured, individual, shared = world.values.copy(), np.array(world.individual), np.array(world.shared)
    off = individual * rng.standard_normal((len(names) + 1, 2)) + shared * rng.standard_normal(2)
    measured[:, :2] += off[:-1]
    epochs = world.values[:, 3:] * np.exp(world.timing * rng.standard_normal((len(names), NUM_EPOCHS)))
    measured[:, 3] = epochs[:, -1]
    trials = pd.DataFrame(measured, columns=[objective.name for objective in OBJECTIVES])
    baseline = {"fid_mini": BASE_FID + off[-1, 0], "vendi_mini": BASE_VENDI + off[-1, 1]}
    together = shared * rng.standard_normal((NUM_RESAMPLES, 2))
    resamples = {
        name: pd.DataFrame(
            individual * rng.standard_normal((NUM_RESAMPLES, 2)) + together, columns=["fid_mini", "vendi_mini"]
        )
        for name in (*names, BASE)
    }
    results = pd.DataFrame(
        {
            "trial_id": np.repeat(names, NUM_EPOCHS),
            "epoch": np.tile(np.arange(NUM_EPOCHS), len(names)),
            "epoch_s": epochs.ravel(),
        }
    )
    evidence = Evidence(baseline=baseline, resamples=resamples, results=results)
    return Seen(trials=trials.assign(trial_id=names, strategy="any"), evidence=evidence)


def true_front(world: World) -> NDArray[np.bool_]:
    """Which trials nothing dominates, the base included, by values without noise."""
    base = [BASE_FID, BASE_VENDI, 0.0, 0.0]
    return pareto_mask(np.vstack([world.values, base]), [objective.direction for objective in OBJECTIVES])[:-1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """How often points given 0.85 to 0.95 are on the true front, and how far probabilities are off (Brier score)."""

    family: str
    num_trials: int
    num_worlds: int
    points_at_nine_tenths: int
    hits_at_nine_tenths: int
    given: float
    brier: float
    plain_points: int
    plain_hits: int
    plain_brier: float


def calibration(family: str, *, num_worlds: int, num_trials: int, seed: int, with_plain: bool = True) -> Row:
    """Compare what is said with what is, over worlds of one family.

    Args:
        family: one of `FAMILIES`.
        num_worlds: how many.
        num_trials: of each.
        seed: of the worlds and of their noise.
        with_plain: whether to compare with plain shares, which takes most of the time.
    """
    rng = np.random.default_rng(seed)
    given, plain, truth = [], [], []
    for _ in range(num_worlds):
        world = FAMILIES[family](rng, num_trials)
        what = seen(world, rng)
        front = find_front(what.trials, OBJECTIVES, what.evidence)
        given.append([front.probabilities[name] for name in what.trials["trial_id"]])
        plain.append(plain_shares(what) if with_plain else given[-1])
        truth.append(true_front(world))
    said, simple, on_front = np.concatenate(given), np.concatenate(plain), np.concatenate(truth)
    chosen, others = _near_nine_tenths(said), _near_nine_tenths(simple)
    return Row(
        family=family,
        num_trials=num_trials,
        num_worlds=num_worlds,
        points_at_nine_tenths=int(chosen.sum()),
        hits_at_nine_tenths=int(on_front[chosen].sum()),
        given=float(said[chosen].mean()) if chosen.any() else float("nan"),
        brier=float(np.mean((said - on_front) ** 2)),
        plain_points=int(others.sum()),
        plain_hits=int(on_front[others].sum()),
        plain_brier=float(np.mean((simple - on_front) ** 2)),
    )


def plain_shares(what: Seen) -> Floats:
    """The second implementation: noise is added to the values as they are, and fronts that hold a trial are counted."""
    noise = draw_noise(what.trials, OBJECTIVES, what.evidence)
    assert noise is not None
    names, directions = [objective.name for objective in OBJECTIVES], [objective.direction for objective in OBJECTIVES]
    values = what.trials[names].to_numpy(np.float64)
    base = np.array([*(what.evidence.baseline or {}).values(), 0.0, 0.0])
    drawn = zip(noise.trials[:PLAIN_DRAWS], noise.base[:PLAIN_DRAWS], strict=True)
    share: Floats = np.mean([_beside(values + offsets, base + rest, directions) for offsets, rest in drawn], axis=0)
    return share


def _beside(values: Floats, base: Floats, directions: list[Direction]) -> NDArray[np.bool_]:
    return pareto_mask(np.vstack([values, base]), directions)[:-1]


def _near_nine_tenths(shares: Floats) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = (shares >= 0.85) & (shares <= 0.95)
    return near


def main(
    num_worlds: Annotated[int, typer.Option(min=1, help="Of each family and number of trials.")] = 200,
    to: Annotated[Path | None, typer.Option("--json", help="Where to write the rows.", metavar="FILE")] = None,
    plain: Annotated[
        bool, typer.Option(help="Whether to count plain fronts too, which takes most of the time.")
    ] = True,
) -> None:
    """Measure how often points given 0.9 are on the front."""
    table = Table(
        "worlds", "trials", "points given 0.85 to 0.95", "on the front", "Brier", "plain: points", "on", "Brier"
    )
    rows = []
    for family in FAMILIES:
        for num_trials in (8, 20, 60):
            row = calibration(family, num_worlds=num_worlds, num_trials=num_trials, seed=0, with_plain=plain)
            rows.append(row)
            table.add_row(family, str(num_trials), *map(str, _cells(row)))
            if to is not None:
                to.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    Console().print(table)


def _cells(row: Row) -> tuple[str | int, ...]:
    ours = f"{row.hits_at_nine_tenths / max(1, row.points_at_nine_tenths):.3f}"
    plain = f"{row.plain_hits / max(1, row.plain_points):.3f}"
    return row.points_at_nine_tenths, ours, f"{row.brier:.4f}", row.plain_points, plain, f"{row.plain_brier:.4f}"


if __name__ == "__main__":
    typer.run(main)
