"""What a recording says of rungs: do they order trainings as the end does, what do they cost, how far do seeds differ?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from scipy.stats import spearmanr

from analysis.studies.rung_agreement import FEWEST_TRIALS, spearman_interval
from benchmarks.recordings import METRICS, Curve, Point

LOSS: Final = "loss"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Spearman's rank correlation of a metric at a rung with the same metric of all films at the end.

    Attributes:
        metric: its name; `loss` is set against itself too.
        epoch, images_per_condition: the rung.
        num_curves: configurations behind it, one seed each.
        correlation: -1 to 1; None with too few curves.
        low, high: its 95 % bootstrap interval over configurations.
        within_strategies: mean over the strategies with at least five configurations, None where there is none.
    """

    metric: str
    epoch: int
    images_per_condition: int
    num_curves: int
    correlation: float | None
    low: float | None
    high: float | None
    within_strategies: float | None


@dataclass(frozen=True, kw_only=True)
class CostShare:
    """What it costs to train up to a rung and to score there once, in CPU seconds.

    Attributes:
        epoch, images_per_condition: the rung.
        num_curves: trainings behind it, all that reached their end.
        training_cpu_s, evaluation_cpu_s: mean of a training.
        share: of the cost of training to the end and scoring all films there, 0 to 1.
    """

    epoch: int
    images_per_condition: int
    num_curves: int
    training_cpu_s: float
    evaluation_cpu_s: float
    share: float


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """How far seeds of one configuration lie apart at the end, beside configurations.

    Attributes:
        metric: its name.
        num_configs: configurations with several seeds.
        between_seeds: standard deviation within configurations, pooled.
        between_configs: standard deviation of their means.
        standard_error: root mean square of the trainings' own standard error over generated films.
    """

    metric: str
    num_configs: int
    between_seeds: float
    between_configs: float
    standard_error: float


def agreements(curves: Sequence[Curve], rungs: Sequence[int], counts: Sequence[int]) -> list[Agreement]:
    """Every metric at every rung and number of films against its value of all films at the end."""
    first = [curve for curve in curves if curve.seed == 0 and curve.failure is None]
    end = (rungs[-1], counts[-1])
    looks = [(epoch, count) for epoch in rungs for count in counts if (epoch, count) != end]
    scored = [_agreement(first, metric, look, end) for metric in METRICS for look in looks]
    losses = [_agreement(first, LOSS, (epoch, counts[-1]), end) for epoch in rungs[:-1]]
    return [*scored, *losses]


def _agreement(curves: Sequence[Curve], metric: str, look: tuple[int, int], end: tuple[int, int]) -> Agreement:
    value = _loss if metric == LOSS else _value_of(metric)
    both = [(curve.strategy, curve.at(*look), curve.at(*end)) for curve in curves]
    measured = [(strategy, value(early), value(last)) for strategy, early, last in both if early and last]
    pairs = np.array([pair for _, *pair in measured], np.float64).reshape(-1, 2)
    enough = len(pairs) >= FEWEST_TRIALS
    low, high = spearman_interval(pairs) if enough else (None, None)
    return Agreement(
        metric=metric,
        epoch=look[0],
        images_per_condition=look[1],
        num_curves=len(pairs),
        low=low,
        high=high,
        correlation=float(spearmanr(*pairs.T).statistic) if enough else None,
        within_strategies=_within(measured),
    )


def _within(measured: Sequence[tuple[str, float, float]]) -> float | None:
    by_strategy = groupby(sorted(measured, key=lambda entry: entry[0]), key=lambda entry: entry[0])
    groups = [np.array([pair for _, *pair in entries]) for _, entries in by_strategy]
    correlations = [float(spearmanr(*pairs.T).statistic) for pairs in groups if len(pairs) >= FEWEST_TRIALS]
    return float(np.mean(correlations)) if correlations else None


def _value_of(metric: str) -> Callable[[Point], float]:
    return lambda point: point.scores[metric].value


def _loss(point: Point) -> float:
    return point.loss


def cost_shares(curves: Sequence[Curve], rungs: Sequence[int], counts: Sequence[int]) -> list[CostShare]:
    """What every rung costs with every number of films."""
    whole = [curve for curve in curves if curve.failure is None]
    total = sum(point.training_cpu_s + point.evaluation_cpu_s for point in _at(whole, rungs[-1], counts[-1]))
    return [
        _cost(list(_at(whole, epoch, count)), total)
        for epoch in rungs
        for count in counts
        if any(_at(whole, epoch, count))
    ]


def _at(curves: Sequence[Curve], epoch: int, count: int) -> Iterator[Point]:
    return (point for curve in curves if (point := curve.at(epoch, count)) is not None)


def _cost(points: Sequence[Point], total: float) -> CostShare:
    training = sum(point.training_cpu_s for point in points)
    evaluation = sum(point.evaluation_cpu_s for point in points)
    return CostShare(
        epoch=points[0].epoch,
        images_per_condition=points[0].images_per_condition,
        num_curves=len(points),
        training_cpu_s=training / len(points),
        evaluation_cpu_s=evaluation / len(points),
        share=(training + evaluation) / total,
    )


def seed_spreads(curves: Sequence[Curve], epoch: int, count: int) -> list[SeedSpread]:
    """How far seeds lie apart at the end, by metric; empty where fewer than two configurations have several."""
    by_config: dict[str, list[Point]] = {}
    for curve in curves:
        if curve.failure is None and (point := curve.at(epoch, count)) is not None:
            by_config.setdefault(curve.config, []).append(point)
    repeated = [points for points in by_config.values() if len(points) > 1]
    return [_spread(metric, repeated) for metric in METRICS] if len(repeated) > 1 else []


def _spread(metric: str, repeated: Sequence[Sequence[Point]]) -> SeedSpread:
    value = _value_of(metric)
    values = [np.array([value(point) for point in points]) for points in repeated]
    squares = sum(float(((repeats - repeats.mean()) ** 2).sum()) for repeats in values)
    errors = [point.scores[metric].se_generated for points in repeated for point in points]
    return SeedSpread(
        metric=metric,
        num_configs=len(values),
        between_seeds=float(np.sqrt(squares / sum(len(repeats) - 1 for repeats in values))),
        between_configs=float(np.std([repeats.mean() for repeats in values], ddof=1)),
        standard_error=float(np.sqrt(np.mean(np.square(errors)))),
    )
