"""How sure it is that a trial is on the front: what measured values say of values without noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.front.pareto import Direction, dominates, minimised

Floats = NDArray[np.float64]
COMPARED_AT_ONCE: Final = 2_000_000
"""Values that are compared in one array: 16 MB of them."""
LEAST_KEPT: Final = 0.05
"""The least share of a value's distance from the trials' mean that is kept, even where noise explains all of it.
Without it such trials would be equal, and equal trials are all on the front."""
FEWEST_TO_SHRINK: Final = 4
"""Trials from which on the James-Stein estimator towards their mean is better than the values themselves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """Draws of how far the objectives may be off, each draw of all trials and the base together.

    Attributes:
        trials: float[d, n, m], d draws of n trials in m objectives.
        base: float[d, m], the same of the un-adapted base model; zeros where there is none.
    """

    trials: Floats
    base: Floats


def front_probabilities(
    values: ArrayLike, directions: Sequence[Direction], noise: Noise, base: ArrayLike | None = None
) -> Floats:
    """The probability of each trial that neither another one nor the base dominates it, were there no noise.

    True values are drawn around the measured ones as noise is around true ones, after measured values have moved towards
    their mean by what noise adds to their spread: without that, trials that look best because they were lucky count as
    surer than they are. What is off for all trials alike, as by the patients that they are compared with, moves nothing.

    Args:
        values: float[n, m], one row a trial; all finite.
        directions: "min" or "max" for each of the m objectives.
        noise: d draws.
        base: float[m], the un-adapted base model; infinite where no trial can be as good. None: it is no point.

    Returns:
        float[n] in [0, 1]. Of points that are given p, about a share p is on the front: `benchmarks.front_calibration`.

    Source:
        The estimator towards the mean of Efron and Morris 1973 (positive part), an objective at a time; probability by
        counting draws.
    """
    costs = minimised(values, directions)
    signs = minimised(np.ones((1, len(directions))), directions)[0]
    drawn = _true_values(costs, noise.trials * signs)
    num_parts = math.ceil(drawn.size * len(costs) / COMPARED_AT_ONCE)
    on_front = np.concatenate([_non_dominated(part) for part in np.array_split(drawn, num_parts)])
    if base is not None:
        rival = minimised(np.asarray(base, np.float64)[None], directions) + noise.base * signs
        on_front &= ~dominates(rival[:, None], drawn)
    share: Floats = on_front.mean(axis=0)
    return share


def _true_values(costs: Floats, noise: Floats) -> Floats:
    """Draws of the values without noise, float[d, n, m]."""
    shared = noise.mean(axis=1, keepdims=True)
    individual = noise - shared
    kept = _kept_share(costs, individual)
    mean = costs.mean(axis=0)
    drawn: Floats = mean + kept * (costs - mean) + shared + np.sqrt(kept) * individual
    return drawn


def _kept_share(costs: Floats, individual: Floats) -> Floats:
    """How much of a value's distance from the trials' mean is not noise, float[m] in (0, 1]."""
    num_trials = len(costs)
    if num_trials < FEWEST_TO_SHRINK:
        return np.ones(costs.shape[1])
    of_noise, seen = individual.var(axis=1, ddof=1).mean(axis=0), costs.var(axis=0, ddof=1)
    ratio = np.divide(of_noise, seen, out=np.zeros_like(seen), where=seen > 0)
    kept: Floats = np.clip(1 - (num_trials - 3) / (num_trials - 1) * ratio, LEAST_KEPT, 1)
    return kept


def _non_dominated(costs: Floats) -> NDArray[np.bool_]:
    """Which rows of each draw float[d, n, m] no other row dominates; `pareto_mask` for finite costs, in whole arrays."""
    return ~np.asarray(dominates(costs[:, None], costs[:, :, None]).any(axis=2))
