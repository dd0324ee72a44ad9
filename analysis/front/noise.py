"""How far the objectives of a sweep's trials may be off: by films, by patients, by what else ran on the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.front.certainty import Noise
from analysis.front.objectives import BASE, COSTS, TIMED, base_values
from analysis.front.pareto import Objective

Floats = NDArray[np.float64]
NUM_DRAWS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a sweep besides its trials' values.

    Attributes:
        baseline: scores of the un-adapted base model by their names; None or empty where there are none.
        resamples: of each trial, and under `BASE` of the base, what its measured objectives might as well have been: a
            column each, one row a resample, row k of all trials the same films and patients.
        results: one row a report, with `trial_id`, `epoch` and the seconds of each.
    """

    baseline: Mapping[str, Any] | None = None
    resamples: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    results: pd.DataFrame = field(default_factory=pd.DataFrame)


def draw_noise(
    done: pd.DataFrame, objectives: Sequence[Objective], evidence: Evidence, *, seed: int = 0
) -> Noise | None:
    """Draw how far the objectives of completed trials may be off.

    Metrics are off as resampled films and patients say, together for all trials and metrics; seconds as those of the same
    trial's epochs differ, each trial for itself; other costs are exact.

    Args:
        done: completed trials, one row each, with a column for each objective.
        objectives: of the sweep.
        evidence: resamples and reports.
        seed: of the draws.

    Returns:
        The draws, or None where a trial or the base was not resampled, as where there are too few films.
    """
    rng = np.random.default_rng(seed)
    names = [*done["trial_id"].astype(str), *([BASE] if base_values(evidence.baseline, objectives) else [])]
    measured = [objective.name for objective in objectives if objective.name not in COSTS]
    resampled = [evidence.resamples.get(name) for name in names]
    tables = [table[measured] for table in resampled if table is not None and set(measured) <= set(table)]
    if measured and (len(tables) < len(names) or len({len(table) for table in tables}) != 1):
        return None
    noise = np.zeros((NUM_DRAWS, len(names), len(objectives)))
    if measured:
        weights = rng.standard_normal((NUM_DRAWS, len(tables[0])))
        columns = [index for index, objective in enumerate(objectives) if objective.name not in COSTS]
        noise[:, :, columns] = _together(np.stack([table.to_numpy(np.float64) for table in tables]), weights)
    for index, objective in enumerate(objectives):
        if objective.name in TIMED:
            spread = relative_spread(evidence.results, objective.name)
            seconds = done[objective.name].to_numpy(np.float64)
            noise[:, : len(done), index] = spread * seconds * rng.standard_normal((NUM_DRAWS, len(done)))
    trials, rest = noise[:, : len(done)], noise[:, len(done) :]
    return Noise(trials=trials, base=rest.sum(axis=1))


def _together(resamples: Floats, weights: Floats) -> Floats:
    """Normal noise of the resamples' own covariance over trials and metrics.

    Args:
        resamples: float[n, k, m].
        weights: float[d, k], standard normal.

    Returns:
        float[d, n, m].
    """
    deviations = resamples - resamples.mean(axis=1, keepdims=True)
    drawn: Floats = np.einsum("dk,nkm->dnm", weights, deviations) / np.sqrt(max(1, weights.shape[1] - 1))
    return drawn


def relative_spread(results: pd.DataFrame, column: str) -> float:
    """How far an epoch's value differs from the others of its trial, as a share of itself, pooled over trials.

    Args:
        results: one row a report. The first epoch of a trial, which compiles and fills caches, is left out.
        column: seconds, or images a second.

    Returns:
        Standard deviation of the logarithm; 0 where no trial has two such epochs.
    """
    if not {"trial_id", "epoch", column} <= set(results.columns):
        return 0.0
    warm = results[(results["epoch"] > 0) & (results[column] > 0)]
    logs = pd.Series(np.log(warm[column].to_numpy(np.float64)), index=warm.index).groupby(warm["trial_id"])
    degrees = int((logs.count() - 1).sum())
    return float(np.sqrt(logs.var(ddof=0).mul(logs.count()).sum() / degrees)) if degrees else 0.0
