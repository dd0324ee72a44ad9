"""Which smaller adapter of a training is scored next: the one that may add most to what the training gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.front.hypervolume import hypervolume, hypervolume_gain
from analysis.front.objectives import COSTS
from analysis.front.pareto import Direction, Objective
from analysis.run_folder import SAMPLES_SHEET, resamples_beside
from sweep.search.history import reported
from sweep.search.stopping_rules import BONUS, LEAST_GAIN, reference_point

SIZE: Final = "trainable_parameters"
"""Orders the adapters of a training."""


def next_cut(
    scored: Mapping[Path, Mapping[str, Any]], left: Mapping[str, Mapping[str, Any]], *, objectives: Sequence[Objective]
) -> str | None:
    """The label of the cut whose optimistic gain of hypervolume over what is scored is largest.

    The smallest comes first. Each other one lies between two neighbours that are scored. It is taken to cost what it does,
    and to be better in each metric than the better of the two by half a standard error of their difference: what films and
    patients make of both alike falls out, as the same ones score both. A gain below 0.2 % of the hypervolume of what is scored
    is none. Where fewer than two have values, nothing is left out.

    Args:
        scored: reports of what was scored, by the folder in the run directory that has the adapter; the whole is the first.
        left: reports of the others without metrics, by label.
        objectives: of the sweep, m of them.

    Returns:
        None where no other is worth its evaluation. Of several with the largest gain it is the middle one by size.
    """
    names, labels = [objective.name for objective in objectives], sorted(left, key=lambda label: left[label][SIZE])
    folders = sorted(scored, key=lambda folder: scored[folder][SIZE])
    values = np.array([reported(scored[folder], objectives, names)[0] for folder in folders])
    known = values[np.isfinite(values).all(axis=1)]
    if not labels or len(scored) == 1 or len(known) < 2:
        return labels[0] if labels else None
    hopes = np.fmin(values[:-1], values[1:]) - BONUS * _errors_between(folders, names)
    gaps = np.searchsorted([scored[folder][SIZE] for folder in folders], [left[label][SIZE] for label in labels]) - 1
    costs = np.array([reported(left[label], objectives, names)[0] for label in labels])
    is_cost = [name in COSTS for name in names]
    directions: list[Direction] = ["min"] * len(names)
    bound = reference_point(known, is_cost)
    points = np.where(is_cost, costs, hopes[gaps])
    gains = np.array([hypervolume_gain(point, known, directions, bound) for point in points])
    best = np.flatnonzero(gains == gains.max())
    is_worth_it = gains.max() >= LEAST_GAIN * hypervolume(known, directions, bound)
    return labels[best[(len(best) - 1) // 2]] if is_worth_it else None


def _errors_between(folders: Sequence[Path], names: Sequence[str]) -> NDArray[np.float64]:
    """Standard errors of how far neighbours are apart, by what resampled films and patients make of both.

    Without them a rank that is better than both of its neighbours would be passed over wherever the smaller is the better one.

    Args:
        folders: n of a run directory.
        names: of the m objectives.

    Returns:
        float[n - 1, m], 0 where none is known.
    """
    paths = [resamples_beside(folder / SAMPLES_SHEET) for folder in folders]
    tables = [pd.read_parquet(path) if path.is_file() else pd.DataFrame() for path in paths]
    spreads = [(first - second).std() for first, second in pairwise(tables)]
    errors: NDArray[np.float64] = np.nan_to_num([[spread.get(name, 0.0) for name in names] for spread in spreads])
    return errors
