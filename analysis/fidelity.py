"""Fidelity and diversity of generated films: each figure with its interval, its numbers of images and its extractor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.metrics import METRICS, LabelledFeatures, bootstrap_interval, evaluate, extrapolated_frechet_distance
from analysis.metrics.measurement import Measurement, measurements

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964
"""Of the two-sided 95 %."""
MIN_HALVED = 4
SIZES = 4
INFINITE = "fid_infinite"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measurement with its 95 % interval; without where there are too few films for one.

    Args:
        measurement: value, numbers of films, extractor and its weights.
        low: lower end.
        high: upper end.
    """

    measurement: Measurement
    low: float | None = None
    high: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Everything by name, for a table or JSON."""
        return {**asdict(self.measurement), "low": self.low, "high": self.high, "confidence": CONFIDENCE}

    def named(self) -> dict[str, float]:
        """The numbers as results name them: `fid_mini/Edema`, `fid_mini_low/Edema`, `fid_mini_high/Edema`."""
        one = self.measurement
        suffix = "" if one.condition is None else f"/{one.condition}"
        ends = {"": one.value, "_low": self.low, "_high": self.high}
        return {f"{one.metric}_{one.extractor}{end}{suffix}": v for end, v in ends.items() if v is not None}


def fidelity_figures(
    generated: LabelledFeatures,
    reference: LabelledFeatures,
    *,
    extractor: str,
    weights_hash: str,
    conditions: Sequence[str],
    num_resamples: int = 100,
) -> tuple[Figure, ...]:
    """Every metric over all films and over those of each condition, and the Fréchet distance at infinitely many.

    Args:
        generated: features and conditions of generated films.
        reference: the same of real ones, as many of each condition.
        extractor: name of what made the features.
        weights_hash: of its weights.
        conditions: those to measure apart from the whole.
        num_resamples: random halves behind each interval; it is left out where halves are too small for the metric.

    Raises:
        ValueError: features are invalid, do not match, or fewer than two films have a condition.
    """
    values = evaluate(METRICS.values(), generated, reference, extractor=extractor, conditions=conditions)
    found = measurements(values, extractor=extractor, weights_hash=weights_hash)
    figures = [_with_interval(one, generated, reference, num_resamples) for one in found]
    return (*figures, *_at_infinity(found, generated, reference))


def _with_interval(
    one: Measurement, generated: LabelledFeatures, reference: LabelledFeatures, num_resamples: int
) -> Figure:
    metric, smaller = METRICS[one.metric], min(one.num_generated, one.num_reference)
    if smaller < 2 * MIN_HALVED or not metric.fits(smaller // 2, smaller // 2):
        return Figure(measurement=one)
    images, real = generated.of(one.condition), reference.of(one.condition)
    found = bootstrap_interval(metric.fn, images, real, confidence=CONFIDENCE, num_resamples=num_resamples)
    return Figure(measurement=one, low=found.low, high=found.high)


def _at_infinity(
    found: Sequence[Measurement], generated: LabelledFeatures, reference: LabelledFeatures
) -> Iterator[Figure]:
    """The extrapolated Fréchet distance wherever there are films enough; its interval holds the line's doubt too."""
    for one in found:
        # The error comes from halves of the films, each of which is cut into parts again.
        if one.metric == "fid" and min(one.num_generated, one.num_reference) >= 2 * MIN_HALVED * SIZES:
            line = extrapolated_frechet_distance(
                generated.of(one.condition), reference.of(one.condition), num_sizes=SIZES
            )
            half = NORMAL_QUANTILE * line.standard_error
            named = Measurement(**{**asdict(one), "metric": INFINITE, "value": line.value})
            yield Figure(measurement=named, low=line.value - half, high=line.value + half)
