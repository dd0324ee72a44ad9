"""What evaluations during training are worth: do they put trials in the order that the last evaluation does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from analysis.features import split_metric
from analysis.front.pareto import Direction, Objective
from analysis.metrics import METRICS, Metric

EARLY: Final = "early_"
"""Begins the names of what an evaluation with fewer images or steps than the last measured: never the same column."""
STANDARD_ERROR: Final = "_se"
"""Ends the name of what is the standard error of the value without it, over other generated films."""
FEWEST_TRIALS: Final = 5
NUM_RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95
SIGNS: Final[dict[Direction, float]] = {"min": 1.0, "max": -1.0}


@dataclass(frozen=True, kw_only=True)
class RungAgreement:
    """Rank correlation of a metric at one rung with an objective at the end of training.

    Attributes:
        epoch: of the rung, from 0.
        metric: name at the rung, such as `early_kid_mini`.
        objective: name at the end, such as `fid_mini`.
        num_generated: images behind the metric; None where the table does not say.
        num_trials: trials that have both.
        correlation: Spearman's, -1 to 1; 1: the rung orders trials by better and worse as the end does. None with fewer
            than FEWEST_TRIALS trials or where either does not vary.
        low: lower end of its bootstrap interval; None likewise.
        high: upper end of the interval.
    """

    epoch: int
    metric: str
    objective: str
    num_generated: int | None
    num_trials: int
    correlation: float | None = None
    low: float | None = None
    high: float | None = None


def rung_agreements(results: pd.DataFrame, objectives: Sequence[Objective], *, seed: int = 0) -> list[RungAgreement]:
    """Compare every evaluation during training with the last one, over the trials of a recorded sweep.

    Args:
        results: one row a report, with `trial_id`, `epoch`, `final` and the metrics.
        objectives: the sweep's; costs such as `epoch_s` are passed over, as no evaluation measures them.
        seed: of the bootstrap.

    Returns:
        One entry for each rung, metric of it and objective, in the order of the epochs; empty where no trial was
        evaluated during its training.

    Source:
        Spearman 1904; percentile bootstrap over trials, Efron and Tibshirani 1993, chapter 13.
    """
    if not {"trial_id", "epoch", "final"} <= set(results.columns):
        return []
    final = results["final"].fillna(False).astype(bool)
    last, during = _by_trial(results[final]), results[~final]
    agreements = [
        _agreement(_by_trial(rung), last, (metric, objective), seed)
        for objective in objectives
        if _metric_of(objective.name) and objective.name in last
        for metric in map(str, results.columns)
        if _is_compared(metric, objective)
        for _, rung in during.dropna(subset=[metric]).groupby("epoch")
    ]
    return sorted(agreements, key=lambda agreement: (agreement.objective, agreement.metric, agreement.epoch))


def spearman_interval(pairs: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of Spearman's correlation; resamples in which either column is constant are left out.

    Args:
        pairs: float[n, 2].
        seed: of the resampling.

    Returns:
        The two ends, -1 to 1.
    """
    rows = np.random.default_rng(seed).integers(0, len(pairs), (NUM_RESAMPLES, len(pairs)))
    ranks = rankdata(pairs[rows], axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=1)).prod(axis=1)
    varied = spread > 0
    drawn = centred[varied].prod(axis=2).sum(axis=1) / spread[varied]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _by_trial(reports: pd.DataFrame) -> pd.DataFrame:
    """One row a trial, its last report of those given."""
    return reports.drop_duplicates("trial_id", keep="last").set_index("trial_id")


def _agreement(rung: pd.DataFrame, last: pd.DataFrame, compared: tuple[str, Objective], seed: int) -> RungAgreement:
    metric, objective = compared
    measured = _metric_of(metric.removeprefix(EARLY))
    assert measured is not None
    both = pd.DataFrame(
        {"rung": SIGNS[measured.direction] * rung[metric], "end": SIGNS[objective.direction] * last[objective.name]}
    )
    pairs = both.to_numpy(np.float64)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return RungAgreement(
        epoch=int(rung["epoch"].iloc[0]),
        metric=metric,
        objective=objective.name,
        num_trials=len(pairs),
        num_generated=_num_generated(rung, metric),
        **_correlation(pairs, seed),
    )


def _correlation(pairs: NDArray[np.float64], seed: int) -> dict[str, float]:
    if len(pairs) < FEWEST_TRIALS or (np.ptp(pairs, axis=0) == 0).any():
        return {}
    low, high = spearman_interval(pairs, seed=seed)
    return {"correlation": float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic), "low": low, "high": high}


def _is_compared(column: str, objective: Objective) -> bool:
    """The objective itself, measured early or where rungs are evaluated like the end, and what few films estimate alike."""
    early = _metric_of(column.removeprefix(EARLY)) if column.startswith(EARLY) else None
    return column.removeprefix(EARLY) == objective.name or (early is not None and early.unbiased)


def _metric_of(column: str) -> Metric | None:
    """What `fid_mini` is; None for what is of one condition, or no metric of features."""
    return None if "/" in column else METRICS.get(split_metric(column)[0])


def _num_generated(rung: pd.DataFrame, metric: str) -> int | None:
    column = f"{EARLY if metric.startswith(EARLY) else ''}num_generated"
    counts = rung[column].dropna() if column in rung else pd.Series(dtype=float)
    return int(counts.iloc[0]) if len(counts) else None
