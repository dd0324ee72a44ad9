"""Hypervolume: how much of the objectives' space a set of trials dominates, exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.front.objectives import COSTS
from analysis.front.pareto import Direction, Objective, minimised, pareto_mask

MARGIN: Final = 0.1
"""How far a nadir is moved outwards, as a share of the front's range, so that the ends of the front count too."""


def hypervolume(values: ArrayLike, directions: Sequence[Direction], reference: ArrayLike) -> float:
    """Volume that is dominated by at least one row and dominates the reference point.

    Args:
        values: float[n, m], one row a trial; rows that are not finite count nothing. Up to five objectives are quick.
        directions: "min" or "max" for each of the m objectives.
        reference: float[m], a point in the units of `values`; what is not better than it in every objective counts nothing.

    Returns:
        A number in [0, inf); higher is better. 0 where there are no rows.

    Raises:
        ValueError: shapes do not match, or the reference point is not finite.

    Source:
        Zitzler and Thiele 1998; slicing by objectives: While et al. 2006, section III.
    """
    costs, bound = _bounded(values, directions, reference)
    return _volume(_inside(costs, bound), bound)


def hypervolume_gain(
    point: ArrayLike, others: ArrayLike, directions: Sequence[Direction], reference: ArrayLike
) -> float:
    """What a point adds to the hypervolume of others.

    Args:
        point: float[m].
        others: float[n, m].
        directions: as of `hypervolume`.
        reference: likewise.

    Returns:
        A number in [0, inf), 0 for a point that the others dominate or equal.

    Raises:
        ValueError: as of `hypervolume`.
    """
    costs_of_point, bound = _bounded(np.atleast_2d(np.asarray(point, dtype=np.float64)), directions, reference)
    costs, _ = _bounded(others, directions, reference)
    if not len(_inside(costs_of_point, bound)):
        return 0.0
    shared = np.maximum(_inside(costs, bound), costs_of_point)  # what the point and each of the others dominate both
    gain = float(np.prod(bound - costs_of_point[0])) - _volume(shared, bound)
    return max(0.0, gain)  # rounding may leave a little less than nothing


def nadir(values: ArrayLike, directions: Sequence[Direction], margin: float = MARGIN) -> NDArray[np.float64]:
    """The worst value of each objective on the front of finite rows, moved outwards by a share of the front's range.

    Args:
        values: float[n, m], of which at least one row is finite.
        directions: "min" or "max" for each of the m objectives.
        margin: share of the range; 0.1 is usual. An objective that does not vary is moved by the share of 1.

    Returns:
        float[m], a reference point for `hypervolume`.

    Raises:
        ValueError: no row is finite.

    Source:
        Ishibuchi et al. 2018 (the choice of reference points).
    """
    costs = minimised(values, directions)[pareto_mask(values, directions)]
    if not len(costs):
        raise ValueError("`values` must have a row of finite objectives, but got none. Complete a trial first.")
    spread = np.ptp(costs, axis=0)
    worst = costs.max(axis=0) + margin * np.where(spread > 0, spread, 1.0)
    point: NDArray[np.float64] = minimised(worst[np.newaxis], directions)[0]  # back to the units of `values`
    return point


def comparable(values: ArrayLike, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Values whose volumes mean something: costs, which span orders of magnitude, by their decimal logarithms.

    Domination is the same before and after.

    Args:
        values: float[n, m], one row a trial.
        objectives: of the m columns.

    Returns:
        float[n, m]; a cost that is not positive becomes NaN.
    """
    array = np.array(values, dtype=np.float64).reshape(-1, len(objectives))
    for column, objective in enumerate(objectives):
        if objective.name in COSTS:
            positive = np.where(array[:, column] > 0, array[:, column], np.nan)
            array[:, column] = np.log10(positive)
    return array


def _bounded(
    values: ArrayLike, directions: Sequence[Direction], reference: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and reference point with every objective to be minimised."""
    costs = minimised(np.asarray(values, dtype=np.float64).reshape(-1, len(directions)), directions)
    point = np.asarray(reference, dtype=np.float64)
    if point.shape != (len(directions),) or not np.isfinite(point).all():
        raise ValueError(
            f"`reference` must be a finite value for each of {len(directions)} objectives, but got {point.tolist()}. "
            "Give one worse than the trials that are to count, such as `nadir`."
        )
    return costs, minimised(point[np.newaxis], directions)[0]


def _inside(costs: NDArray[np.float64], bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows that are better than the reference point in every objective."""
    inside: NDArray[np.float64] = costs[np.isfinite(costs).all(axis=1) & (costs < bound).all(axis=1)]
    return inside


def _volume(costs: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """Hypervolume of rows inside the bound, of which those that are dominated are left out first."""
    if not len(costs):
        return 0.0
    front = costs[pareto_mask(costs, ["min"] * costs.shape[1])]
    missing = 3 - front.shape[1]  # fewer than three objectives become three, of depth 1 in those that are added
    if missing > 0:
        front = np.concatenate([front, np.zeros((len(front), missing))], axis=1)
        bound = np.concatenate([bound, np.ones(missing)])
    return _sliced(front, bound)


def _sliced(costs: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """The volume by slices along an objective, down to three objectives."""
    if costs.shape[1] == 3:
        return _on_a_grid(costs, bound)
    axis = int(np.argmin([len(np.unique(column)) for column in costs.T]))  # the fewest slices
    levels = np.unique(costs[:, axis])
    heights = np.diff(np.append(levels, bound[axis]))
    rest, left = np.delete(costs, axis, axis=1), np.delete(bound, axis)
    return sum(
        float(height) * _sliced(rest[costs[:, axis] <= level], left)
        for level, height in zip(levels, heights, strict=True)
    )


def _on_a_grid(costs: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """The volume in three objectives: each cell of the first two is as deep as the best third value that reaches it."""
    (xs, column), (ys, row) = (np.unique(axis, return_inverse=True) for axis in costs.T[:2])
    best = np.full((len(xs), len(ys)), bound[2])
    np.minimum.at(best, (column, row), costs[:, 2])
    np.minimum.accumulate(best, axis=0, out=best)
    np.minimum.accumulate(best, axis=1, out=best)
    widths, heights = np.diff(np.append(xs, bound[0])), np.diff(np.append(ys, bound[1]))
    return float(widths @ (bound[2] - best) @ heights)
