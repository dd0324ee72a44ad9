"""The Pareto front of a sweep: objectives, points, which rows dominate which, and the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.files import whole_file

Direction = Literal["min", "max"]
PARAMETER_PREFIX = "param/"
_ALL: Final[NDArray[np.bool_]] = np.ones((), dtype=bool)
ROWS_AT_ONCE: Final = 128
"""Rows that are compared with a front at once."""
NEAR: Final = 0.05
"""The least probability of being on the front with which a dominated trial is said to be dominated within noise."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised: a column of the trials' table, and which way is better.

    Attributes:
        name: the column, such as `fid_mini` or `epoch_s`.
        direction: "min" where lower is better, "max" where higher is.
    """

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        _check_directions([self.direction])


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPoint:
    """A trial on the front, or one that only noise keeps from it.

    Attributes:
        trial_id: the trial, or the adapter that was cut from its training.
        strategy: the name of its strategy.
        values: of each objective, by name.
        params: hyperparameters by name, without the prefix of the table's columns.
        knee: whether it is the compromise that is proposed.
        probability: that it is on the front of the values without noise, in [0, 1]; None where that is not known.
        errors: standard errors of its values that are known and not 0.
    """

    trial_id: str
    strategy: str
    values: Mapping[str, float]
    params: Mapping[str, Any]
    knee: bool
    probability: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The trials of a sweep that neither another trial nor the un-adapted base dominates.

    Attributes:
        objectives: what it is the front of; values are compared in each one's direction.
        points: best in the first objective first.
        near: trials that are dominated, but within noise: those whose probability is `NEAR` at least, the likeliest first.
        probabilities: of every completed trial, by its id, that it is on the front of the values without noise, in [0, 1];
            empty where that is not known.
        base: the un-adapted base model's value of each objective, itself a point; empty where it has no scores.
        knee_rule: what the knee is, or where there is none why; empty where no trial completed.
    """

    objectives: tuple[Objective, ...]
    points: tuple[FrontPoint, ...]
    near: tuple[FrontPoint, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)
    knee_rule: str = ""

    @property
    def knee(self) -> FrontPoint | None:
        """The proposed compromise, or None where the front is empty."""
        return next((point for point in self.points if point.knee), None)

    def write(self, path: Path) -> None:
        """Write the front as JSON, whole or not at all."""
        record = {
            "objectives": [asdict(objective) for objective in self.objectives],
            "points": [asdict(point) for point in self.points],
            "near": [asdict(point) for point in self.near],
            "probabilities": dict(self.probabilities),
            "base": {name: value for name, value in self.base.items() if math.isfinite(value)},
            "knee_rule": self.knee_rule,
            "knee": self.knee.trial_id if self.knee else None,
        }
        with whole_file(path) as file:
            file.write(json.dumps(record, indent=2, allow_nan=False).encode())

    @classmethod
    def read(cls, path: Path) -> Front:
        """Read a front that `write` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a front.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            objectives = tuple(Objective(**objective) for objective in record["objectives"])
            points, near = (tuple(FrontPoint(**point) for point in record[name]) for name in ("points", "near"))
            rest = {name: record[name] for name in ("probabilities", "base", "knee_rule")}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"`{path.name}` must hold objectives and points, but got {error!r}. Let the sweep write it again."
            ) from error
        return cls(objectives=objectives, points=points, near=near, **rest)


def pareto_mask(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which rows no other row dominates.

    A row dominates another if it is nowhere worse and somewhere better. Equal rows do not dominate each other.

    Args:
        values: float[n, m], one row a trial, one column an objective.
        directions: "min" or "max" for each of the m objectives.

    Returns:
        bool[n]; rows that hold NaN or infinity are never on the front.
    """
    costs = minimised(values, directions)
    rows = np.flatnonzero(np.isfinite(costs).all(axis=1))
    rows = rows[np.lexsort(costs[rows].T[::-1])]
    # In this order whatever dominates a row comes before it; so it is enough to compare each row with the front so far
    # and the rows around it, some of which may turn out to be dominated themselves, but then by what dominates it too.
    front = np.empty(0, dtype=np.intp)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        block = block[~_any_dominates(costs[front], costs[block])]
        front = np.append(front, block[~_any_dominates(costs[block], costs[block])])
    mask = np.zeros(len(costs), dtype=bool)
    mask[front] = True
    return mask


def _any_dominates(costs: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the others, float[k, m], at least one row of float[n, m] dominates."""
    return np.asarray(dominates(costs, others[:, None]).any(axis=1))


def dominates(costs: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether rows are nowhere worse than other rows, and somewhere better.

    Args:
        costs: float[..., m], every objective to be minimised.
        others: likewise; the axes before the last are broadcast.
    """
    nowhere, somewhere = _ALL, ~_ALL
    for index in range(costs.shape[-1]):  # an objective at a time, as arrays of all of them at once would be large
        cost, other = costs[..., index], others[..., index]
        nowhere, somewhere = nowhere & (cost <= other), somewhere | (cost < other)
    return nowhere & somewhere


def dominated(values: ArrayLike, by: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which rows a point dominates: it is nowhere worse than they are, and somewhere better.

    Args:
        values: float[n, m], one row a trial.
        by: float[m], the point; infinite where nothing can be better.
        directions: "min" or "max" for each of the m objectives.

    Returns:
        bool[n].
    """
    costs, point = minimised(values, directions), minimised(np.asarray(by, np.float64)[None], directions)
    return dominates(point, costs)


def minimised(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """Values as float64[n, m] with every objective to be minimised.

    Raises:
        ValueError: they are no table with a column for each direction, or a direction is neither "min" nor "max".
    """
    array = np.asarray(values, dtype=np.float64)
    _check_directions(directions)
    if array.ndim != 2 or array.shape[1] != len(directions) or not directions:
        raise ValueError(
            f"`values` must be [n, m] with a direction for each column, but got shape {array.shape} and "
            f"{len(directions)} directions. Give one column an objective."
        )
    signs = np.array([1.0 if direction == "min" else -1.0 for direction in directions])
    costs: NDArray[np.float64] = array * signs
    return costs


def _check_directions(directions: Sequence[str]) -> None:
    for direction in directions:
        if direction not in ("min", "max"):
            raise ValueError(f"`direction` must be 'min' or 'max', but got {direction!r}. Choose one of the two.")
