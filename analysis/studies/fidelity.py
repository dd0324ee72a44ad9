"""Fidelity and diversity of generated films: each figure with its interval, its numbers of images and its extractor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.checks import expect
from analysis.metrics import METRICS, LabelledFeatures, bootstrap_interval, evaluate, extrapolated_frechet_distance
from analysis.metrics.inputs import Floats
from analysis.metrics.intervals import smallest_half
from analysis.metrics.measurement import Measurement, measurements

CONFIDENCE = 0.95
NORMAL_QUANTILE = 1.959964
"""The quantile of the normal distribution that bounds its middle 95 %."""
MIN_FILMS = MIN_PATIENTS = 20
"""The fewest films behind an interval. Of 8 films the interval of a Vendi score or of recall holds its value only four
times in five."""
SIZES = 4
INFINITE = "fid_infinite"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measurement with its 95 % interval, or alone where no interval holds the true value as often as it says.

    Attributes:
        measurement: value, numbers of films, extractor and its weights.
        low: lower end of the interval; None where there is none.
        high: upper end of the interval; None where there is none.
    """

    measurement: Measurement
    low: float | None = None
    high: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Everything by name, for a table or JSON."""
        return {**asdict(self.measurement), "low": self.low, "high": self.high, "confidence": CONFIDENCE}

    def named(self) -> dict[str, float]:
        """The numbers as results name them: `fid_mini/Edema`, `fid_mini_low/Edema`, `fid_mini_high/Edema`."""
        measurement = self.measurement
        suffix = "" if measurement.condition is None else f"/{measurement.condition}"
        ends = {"": measurement.value, "_low": self.low, "_high": self.high}
        return {
            f"{measurement.metric}_{measurement.extractor}{end}{suffix}": v for end, v in ends.items() if v is not None
        }


def fidelity_figures(
    generated: LabelledFeatures,
    reference: LabelledFeatures,
    *,
    patients: Sequence[str],
    extractor: str,
    weights_hash: str,
    conditions: Sequence[str],
    num_resamples: int = 100,
) -> tuple[Figure, ...]:
    """Every metric over all films and over those of each condition, and the Fréchet distance at infinitely many.

    Args:
        generated: features and conditions of generated films.
        reference: the same of real ones, as many of each condition.
        patients: whose each real film is; a patient's films are no independent ones. Generated films are.
        extractor: name of what made the features.
        weights_hash: of its weights.
        conditions: those to measure apart from the whole.
        num_resamples: random halves behind each interval. It is left out for metrics without `spread`, where the value
            is the metric's smallest or largest, below 20 films or patients, and where halves are too small.

    Raises:
        ValueError: features are invalid, do not match, fewer than two films have a condition, or patients and real
            films are not equally many.
    """
    values = evaluate(METRICS.values(), generated, reference, extractor=extractor, conditions=conditions)
    measured = measurements(values, extractor=extractor, weights_hash=weights_hash)
    films = {name: _Films.of(name, generated, reference, patients) for name in (None, *conditions)}
    pairs = [(measurement, films[measurement.condition]) for measurement in measured]
    figures = [_with_interval(measurement, films, num_resamples) for measurement, films in pairs]
    return (*figures, *_at_infinity(pairs))


@dataclass(frozen=True, kw_only=True)
class _Films:
    """Features of a condition or of all films, and the patients of the real films."""

    generated: Floats
    reference: Floats
    patients: NDArray[Any]

    @staticmethod
    def of(
        condition: str | None, generated: LabelledFeatures, reference: LabelledFeatures, patients: Sequence[str]
    ) -> _Films:
        expect(
            len(patients) == len(reference),
            f"`patients` must name one for each of {len(reference)} real films",
            len(patients),
            "Give the patient of each.",
        )
        chosen = [condition is None or condition in conditions for conditions in reference.labels]
        return _Films(
            generated=generated.of(condition),
            reference=reference.of(condition),
            patients=np.asarray(patients)[np.array(chosen)],
        )

    def enough(self, num_films: int, num_patients: int) -> bool:
        """Whether there are so many of both kinds, and real ones of so many patients."""
        fewest = min(len(self.generated), len(self.reference))
        return fewest >= num_films and len(np.unique(self.patients)) >= num_patients


def _with_interval(measurement: Measurement, films: _Films, num_resamples: int) -> Figure:
    metric = METRICS[measurement.metric]
    has_one = metric.spread is not None and measurement.value not in metric.bounds
    halves = len(films.generated) // 2, smallest_half(films.patients)
    if not (has_one and films.enough(MIN_FILMS, MIN_PATIENTS) and metric.fits(*halves)):
        return Figure(measurement=measurement)
    interval = bootstrap_interval(
        metric.fn,
        films.generated,
        films.reference,
        groups=films.patients,
        confidence=CONFIDENCE,
        num_resamples=num_resamples,
        bounds=metric.bounds,
        relative=metric.spread == "relative",
    )
    return Figure(measurement=measurement, low=interval.low, high=interval.high)


def _at_infinity(pairs: Sequence[tuple[Measurement, _Films]]) -> Iterator[Figure]:
    """The extrapolated Fréchet distance wherever there are films enough; its interval holds the line's doubt too."""
    for measurement, films in pairs:
        # The error comes from halves of the films, each of which is cut into parts of at least four again.
        if measurement.metric == "fid" and films.enough(8 * SIZES, 8 * SIZES):
            line = extrapolated_frechet_distance(
                films.generated, films.reference, groups=films.patients, num_sizes=SIZES
            )
            half = NORMAL_QUANTILE * line.standard_error
            named = Measurement(**{**asdict(measurement), "metric": INFINITE, "value": line.value})
            yield Figure(measurement=named, low=line.value - half, high=line.value + half)
