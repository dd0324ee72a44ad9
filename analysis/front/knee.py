"""The knee: the one point of the front that is proposed, and the rule by which it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.front.pareto import Direction, minimised, pareto_mask

LEAST_GAIN: Final = 0.5
"""Share of the best gain over the un-adapted base that the knee must have."""
ERRORS: Final = 1.96
"""A difference counts if it exceeds so many of its standard errors: 95 % of the differences between equals do not."""


def knee_index(values: ArrayLike, directions: Sequence[Direction], among: ArrayLike | None = None) -> int:
    """The row of the front that is closest to the ideal point.

    Each objective is scaled to [0, 1] over the front, 0 the best and 1 the worst value on it (0 where it does
    not vary); the ideal is best in all of them at once. Distance is Euclidean; of equal rows the first is taken.

    Args:
        values: float[n, m], one row a trial.
        directions: "min" or "max" for each of the m objectives.
        among: bool[n], rows that may be chosen; the scale is that of the whole front. All where not given.

    Returns:
        An index into the n rows.

    Raises:
        ValueError: no row is finite, or none of the front may be chosen.

    Source:
        The compromise solution of Zeleny 1973 with p = 2.
    """
    on_front = pareto_mask(values, directions)
    chosen = on_front if among is None else on_front & np.asarray(among, bool)
    if not chosen.any():
        raise ValueError("`values` must have a row of finite objectives, but got none. Complete a trial first.")
    costs = minimised(values, directions)
    # halves keep the spread finite where an objective spans the range of float64
    best, worst = costs[on_front].min(axis=0), costs[on_front].max(axis=0)
    spread = worst / 2 - best / 2
    scaled = np.divide(costs[chosen] / 2 - best / 2, spread, out=np.zeros_like(costs[chosen]), where=spread > 0)
    return int(np.flatnonzero(chosen)[np.argmin(np.linalg.norm(scaled, axis=1))])


def worth_it(gains: ArrayLike, errors: ArrayLike) -> NDArray[np.bool_]:
    """Which trials beat the un-adapted base by more than their error, and by at least half of what the best one does.

    Without the second condition an adapter that costs next to nothing and does next to nothing would be a compromise.

    Args:
        gains: float[n], how much better than the base a trial is in one objective; below 0 where it is worse.
        errors: float[n], standard errors of these differences; 0 where they are not known.

    Returns:
        bool[n].
    """
    better, off = np.asarray(gains, np.float64), np.asarray(errors, np.float64)
    surely = better > ERRORS * off
    most = better[surely].max(initial=0.0)
    chosen: NDArray[np.bool_] = surely & (better >= LEAST_GAIN * most)
    return chosen
