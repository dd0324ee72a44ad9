"""The Pareto front of a sweep, and the point of it that is proposed."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.files import whole_file
from analysis.front.statuses import COMPLETED, with_status

Direction = Literal["min", "max"]
PARAMETER_PREFIX = "param/"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimised: a column of the trials' table, and which way is better."""

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        _check_directions([self.direction])


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontPoint:
    """A trial that no other trial beats in every objective."""

    trial_id: str
    strategy: str
    values: Mapping[str, float]
    params: Mapping[str, Any]
    knee: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The non-dominated trials of a sweep, best in the first objective first."""

    objectives: tuple[Objective, ...]
    points: tuple[FrontPoint, ...]

    @property
    def knee(self) -> FrontPoint | None:
        """The proposed compromise, or None where the front is empty."""
        return next((point for point in self.points if point.knee), None)

    def write(self, path: Path) -> None:
        """Write the front as JSON, whole or not at all."""
        record = {
            "objectives": [asdict(objective) for objective in self.objectives],
            "points": [asdict(point) for point in self.points],
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
            points = tuple(FrontPoint(**point) for point in record["points"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"`{path.name}` must hold objectives and points, but got {error!r}. Let the sweep write it again."
            ) from error
        return cls(objectives=objectives, points=points)


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
    mask: NDArray[np.bool_] = np.asarray(np.isfinite(costs).all(axis=1))
    rows, best, count = np.flatnonzero(mask), np.empty_like(costs), 0
    for row in rows[
        np.lexsort(costs[rows].T[::-1])
    ]:  # whatever dominates a row comes before it, and something of the front does
        others = best[:count]
        dominates = (others <= costs[row]).all(axis=1) & (others < costs[row]).any(axis=1)
        mask[row] = not dominates.any()
        if mask[row]:
            best[count], count = costs[row], count + 1
    return mask


def knee_index(values: ArrayLike, directions: Sequence[Direction]) -> int:
    """The row of the front that is closest to the ideal point.

    Each objective is scaled to [0, 1] over the front, 0 the best and 1 the worst value on it (0 where it does
    not vary); the ideal is best in all of them at once. Distance is Euclidean; of equal rows the first is taken.

    Args:
        values: float[n, m], one row a trial.
        directions: "min" or "max" for each of the m objectives.

    Returns:
        An index into the n rows.

    Raises:
        ValueError: no row is finite.

    Source:
        The compromise solution of Zeleny 1973 with p = 2.
    """
    on_front = np.flatnonzero(pareto_mask(values, directions))
    if on_front.size == 0:
        raise ValueError("`values` must have a row of finite objectives, but got none. Complete a trial first.")
    costs = minimised(values, directions)[on_front]
    # halves keep the spread finite where an objective spans the range of float64
    best, worst = costs.min(axis=0), costs.max(axis=0)
    spread = worst / 2 - best / 2
    scaled = np.divide(costs / 2 - best / 2, spread, out=np.zeros_like(costs), where=spread > 0)
    return int(on_front[np.argmin(np.linalg.norm(scaled, axis=1))])


def front(rows: pd.DataFrame, objectives: Sequence[Objective]) -> Front:
    """The front of a table of trials.

    Args:
        rows: one row a trial with `trial_id`, `strategy`, `param/...` and a column for each objective; where there is a
            column `status`, completed trials only are looked at.
        objectives: columns and directions.

    Returns:
        The front, empty where no trial has all objectives.

    Raises:
        ValueError: an objective is not a column of the table.
    """
    names = [objective.name for objective in objectives]
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise ValueError(f"`objectives` must be columns of the trials, but got {missing}; there are {list(rows)}.")
    done = with_status(rows, COMPLETED)
    values = done[names].to_numpy(dtype=np.float64, na_value=np.nan)
    directions = [objective.direction for objective in objectives]
    mask = pareto_mask(values, directions)
    knee = knee_index(values, directions) if mask.any() else -1
    points = [_point(done.iloc[index].to_dict(), names, index == knee) for index in np.flatnonzero(mask).tolist()]
    points.sort(key=lambda point: point.values[names[0]], reverse=directions[0] == "max")
    return Front(objectives=tuple(objectives), points=tuple(points))


def _point(row: Mapping[Hashable, Any], names: Sequence[str], knee: bool) -> FrontPoint:
    """A row of the trials' table as a point of the front; parameters that its strategy does not have are left out."""
    held = {
        str(key).removeprefix(PARAMETER_PREFIX): _plain(value) for key, value in row.items() if _is_param(key, value)
    }
    values = {name: float(row[name]) for name in names}
    return FrontPoint(
        trial_id=str(row["trial_id"]), strategy=str(row["strategy"]), values=values, params=held, knee=knee
    )


def _is_param(column: Hashable, value: Any) -> bool:
    return str(column).startswith(PARAMETER_PREFIX) and not pd.isna(value)


def _plain(value: Any) -> Any:
    """A value for JSON; whole numbers that a table with gaps holds as float become integers again."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def minimised(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """Values as float64[n, m] with every objective to be minimised: those to be maximised change their sign.

    Raises:
        ValueError: there is not one direction for each column.
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
