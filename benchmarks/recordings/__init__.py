"""Recorded learning curves as one reads them: `read_recording` gives the typed curves of a folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as parquet

TABLE: Final = "curves.parquet"
CARD: Final = "card.json"
MARKDOWN: Final = "card.md"
METRICS: Final = ("fid_mini", "kid_mini", "vendi_mini")
"""What every point has, with a standard error."""
POINT_COLUMNS: Final = (
    "epoch",
    "images_per_condition",
    "num_generated",
    "num_reference",
    "loss",
    "trainable_parameters",
    "training_s",
    "training_cpu_s",
    "evaluation_s",
    "evaluation_cpu_s",
    "peak_memory_gib",
    "gauge_cpu_s",
)
"""What it has besides: counts and costs."""
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric of one rung.

    Attributes:
        value: the metric.
        se: its standard error over other generated films and other held-out patients.
        se_generated: over other generated films alone, all held-out films kept; the same for what sees no held-out film.
    """

    value: float
    se: float
    se_generated: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training after some epochs, scored with some number of films.

    Attributes:
        epoch: epochs done.
        images_per_condition: films generated for a condition at most.
        num_generated: generated films.
        num_reference: held-out films that they are compared with.
        scores: by metric.
        loss: mean training loss of the epoch.
        trainable_parameters: how many the strategy trains now.
        training_s, training_cpu_s: of the training up to here, without evaluations.
        evaluation_s, evaluation_cpu_s: of this rung's films, their features and metrics; without the standard errors.
        peak_memory_gib: of the process up to here.
        gauge_cpu_s: of a fixed piece of work, mean over the epochs up to here: how busy the machine was.
    """

    epoch: int
    images_per_condition: int
    num_generated: int
    num_reference: int
    scores: Mapping[str, Score]
    loss: float
    trainable_parameters: int
    training_s: float
    training_cpu_s: float
    evaluation_s: float
    evaluation_cpu_s: float
    peak_memory_gib: float
    gauge_cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One training of one configuration, or a smaller strategy that was cut out of it.

    Attributes:
        config: name of the configuration, shared by its seeds.
        strategy: its name.
        seed: of the training.
        cut: which smaller strategy, such as `rank4`; None for the training itself.
        choice: what the search space suggested: `strategy` with its fields, `lr`, `batch_size`.
        params: the same as Optuna names it, such as `lora/rank`.
        points: by epoch, then by films; fewer than the rungs where the training failed.
        losses: mean training loss of every epoch.
        failure: why the training failed; None where it did not.
        early_failures: by epoch, why a rung before the end could not be scored.
    """

    config: str
    strategy: str
    seed: int
    cut: str | None
    choice: Mapping[str, Any]
    params: Mapping[str, Any]
    points: Sequence[Point]
    losses: Sequence[float]
    failure: str | None
    early_failures: Mapping[int, str]

    def at(self, epoch: int, images_per_condition: int) -> Point | None:
        """The point of a rung, where there is one."""
        matches = (
            point for point in self.points if (point.epoch, point.images_per_condition) == (epoch, images_per_condition)
        )
        return next(matches, None)


@dataclass(frozen=True, kw_only=True)
class RecordedCurves:
    """A recording as it was read.

    Attributes:
        curves: those of trainings first, in the order of configurations and seeds, each followed by its cuts.
        rungs: epochs after which a training was scored, the last at its end.
        image_counts: films per condition of the smaller and of the full score.
        baseline: scores of the un-adapted base, by films per condition; empty where it was not scored.
        card: what else is known of the recording.
    """

    curves: Sequence[Curve]
    rungs: Sequence[int]
    image_counts: Sequence[int]
    baseline: Mapping[int, Mapping[str, Score]]
    card: Mapping[str, Any]

    def trained(self, *, seed: int | None = None) -> list[Curve]:
        """The curves of trainings, without cuts; of one seed where it is given."""
        return [curve for curve in self.curves if curve.cut is None and seed in (None, curve.seed)]


def read_recording(folder: Path) -> RecordedCurves:
    """Read and check a recording.

    Raises:
        ValueError: the table is not the card's, or breaks a rule of what a recording is.
    """
    rows, card = read_table(folder)
    rungs, counts = card["rungs"], card["image_counts"]
    curves = checked_curves(rows, rungs, counts)
    baseline = {row["images_per_condition"]: _scores(row) for row in card["baseline"] or ()}
    return RecordedCurves(curves=curves, rungs=rungs, image_counts=counts, baseline=baseline, card=card)


def read_table(folder: Path) -> tuple[list[Row], Mapping[str, Any]]:
    """The rows of a recording's table, and its card.

    Raises:
        ValueError: the table is not the card's.
    """
    card = json.loads((folder / CARD).read_text())
    content = (folder / TABLE).read_bytes()
    remedy = f"Restore both files of {str(folder)!r}, or remove them and merge the parts again."
    _require(hashlib.sha256(content).hexdigest() == card["sha256"], TABLE, "be the card's", "another one", remedy)
    return parquet.read_table(pa.BufferReader(content)).to_pylist(), card


def trainings_in(folder: Path) -> frozenset[str]:
    """Names of the trainings in the folder's table; none where there is no table."""
    if not (folder / TABLE).exists():
        return frozenset()
    columns = parquet.read_table(folder / TABLE, columns=["config", "seed"]).to_pylist()
    return frozenset(map(training_name, columns))


def training_name(row: Row) -> str:
    """Name of the training that a row is of."""
    return f"{row['config']}-seed{row['seed']}"


def checked_curves(rows: Sequence[Row], rungs: Sequence[int], counts: Sequence[int]) -> list[Curve]:
    """The curves of a table with one row a point, and one row without a point for a training that has none.

    Raises:
        ValueError: one breaks a rule of what a curve is.
    """
    curves = curves_of(rows)
    for curve in curves:
        _check(curve, rungs, counts)
    return curves


def curves_of(rows: Sequence[Row]) -> list[Curve]:
    """The curves that the rows make, unchecked."""
    by_curve: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_curve.setdefault((row["config"], row["seed"], row["cut"]), []).append(row)
    return [_curve(points) for points in by_curve.values()]


def _curve(rows: Sequence[Row]) -> Curve:
    first = rows[0]
    same = {name: first[name] for name in ("config", "strategy", "seed", "cut", "failure", "losses")}
    points = [_point(row) for row in rows if row["epoch"] is not None]
    early = {int(epoch): reason for epoch, reason in json.loads(first["early_failures"]).items()}
    choice, params = json.loads(first["choice"]), json.loads(first["params"])
    return Curve(choice=choice, params=params, points=points, early_failures=early, **same)


def _point(row: Row) -> Point:
    return Point(scores=_scores(row), **{name: row[name] for name in POINT_COLUMNS})


def _scores(row: Row) -> dict[str, Score]:
    return {name: _score(name, row) for name in METRICS}


def _score(name: str, row: Row) -> Score:
    se = row[f"{name}_se"]
    return Score(value=row[name], se=se, se_generated=row.get(f"{name}_se_generated", se))


def _check(curve: Curve, rungs: Sequence[int], counts: Sequence[int]) -> None:
    """Refuse a curve with figures that are not finite, of other rungs, or fewer than all where nothing failed."""
    what = f"{curve.config} (seed {curve.seed}, cut {curve.cut})"
    due = [(epoch, count) for epoch in rungs for count in counts]
    got = [(point.epoch, point.images_per_condition) for point in curve.points]
    if curve.cut is not None:
        due = [(epoch, count) for epoch, count in due if epoch == rungs[-1]]
    _require(set(got) <= set(due) and len(set(got)) == len(got), what, f"have points of {due}", got, "Merge again.")
    left = [(epoch, count) for epoch, count in due if epoch not in curve.early_failures]
    _require(got == left or curve.failure is not None, what, f"have all points of {left}", got, "Record it again.")
    _require(
        all(map(math.isfinite, _figures(curve))), what, "have finite figures", "NaN or infinity", "Record it again."
    )
    costs = [(point.training_cpu_s, point.training_s) for point in curve.points]
    _require(costs == sorted(costs), what, "cost more the longer it trains", costs, "Record it again.")


def _figures(curve: Curve) -> Iterable[float]:
    for point in curve.points:
        yield from (value for value in vars(point).values() if isinstance(value, int | float))
        yield from (number for score in point.scores.values() for number in vars(score).values())
    yield from curve.losses


def _require(holds: bool, what: str, rule: str, got: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"`{what}` must {rule}, but got {got}. {remedy}")
