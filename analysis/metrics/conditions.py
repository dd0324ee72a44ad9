"""Metrics over all images and over those of each condition."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from analysis.checks import did_you_mean
from analysis.metrics.base import Metric
from analysis.metrics.inputs import Floats, as_floats
from analysis.metrics.sets import FeatureSet

Labels = Sequence[str] | Sequence[tuple[str, ...]]
"""For each image its condition, or all of its conditions."""
log = logging.getLogger(__name__)


class LabelledFeatures:
    """Features of images whose conditions are known; what is derived per condition is computed once and kept."""

    def __init__(self, features: ArrayLike, labels: Labels) -> None:
        """Keep float[n, d] features and the conditions of each of the n images.

        Raises:
            ValueError: the features are not valid, or there are more or fewer labels than images.
        """
        self.features = as_floats(features, "features")
        self.labels = tuple((label,) if isinstance(label, str) else tuple(label) for label in labels)
        if len(self.labels) != len(self.features):
            raise ValueError(
                f"`labels` must name the conditions of each of {len(self.features)} images, but got "
                f"{len(self.labels)}. Give one entry an image."
            )
        self._kept: dict[str | None, FeatureSet] = {}
        self._rows: dict[str, list[int]] = {}
        for row, label in enumerate(self.labels):
            for name in set(label):
                self._rows.setdefault(name, []).append(row)

    def __len__(self) -> int:
        return len(self.features)

    def __reduce__(self) -> tuple[type[LabelledFeatures], tuple[Floats, Labels]]:
        return LabelledFeatures, (self.features, self.labels)

    def counts(self) -> dict[str, int]:
        """Number of images with each condition, most frequent first."""
        counts = {name: len(rows) for name, rows in sorted(self._rows.items())}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def of(self, condition: str | None) -> Floats:
        """Features of the images with a condition, or of all.

        Raises:
            ValueError: fewer than two images have the condition.
        """
        if condition is None:
            return self.features
        rows = self._rows.get(condition, [])
        if len(rows) < 2:
            counts = self.counts()
            hint = did_you_mean(condition, (name for name, count in counts.items() if count > 1 and name != condition))
            raise ValueError(
                f"`{condition}` must have at least 2 images for a metric of its own, but got {len(rows)}. "
                f"{f'{hint} ' if hint else ''}There are {counts}. Add images or leave the condition out."
            )
        features: Floats = self.features[np.asarray(rows)]
        return features

    def subset(self, condition: str | None) -> FeatureSet:
        """The same as a set that keeps what metrics derive from it.

        Raises:
            ValueError: fewer than two images have the condition.
        """
        if condition not in self._kept:
            parts = [self.subset(name) for name in self._parts()] if condition is None else []
            self._kept[condition] = FeatureSet(self.of(condition), parts=parts)
        return self._kept[condition]

    def _parts(self) -> tuple[str, ...]:
        """Conditions whose sums make up the whole's: each image has one, and each needs its d x d sums for itself."""
        if any(len(label) != 1 for label in self.labels):
            return ()
        counts = self.counts()
        return tuple(counts) if min(counts.values()) > self.features.shape[1] else ()


def evaluate(
    metrics: Iterable[Metric],
    generated: LabelledFeatures,
    reference: LabelledFeatures,
    *,
    extractor: str,
    conditions: Sequence[str] = (),
) -> dict[str, float]:
    """Every metric over all images and over those of each condition, with the numbers of images behind them.

    A metric is left out, with a warning, where there are fewer images than it is defined for.

    Args:
        metrics: what to evaluate.
        generated: features and conditions of generated images.
        reference: the same of real images; keep one object and what is derived from it is computed once.
        extractor: name of what made the features.
        conditions: those to evaluate apart from the whole.

    Returns:
        `fid_mini`, `fid_mini/Edema`, ..., `num_generated`, `num_generated/Edema`, `num_reference`, ...

    Raises:
        ValueError: features are invalid, do not match, or fewer than two images have a condition.
    """
    metrics = tuple(metrics)
    results: dict[str, float] = {}
    for condition in (None, *conditions):
        suffix = "" if condition is None else f"/{condition}"
        images, real = generated.subset(condition), reference.subset(condition)
        fitting = [metric for metric in metrics if metric.fits(len(images), len(real))]
        values = {metric.reported_name(extractor): metric.fn(images, real) for metric in fitting}
        counts = {"num_generated": len(images), "num_reference": len(real)}
        results |= {f"{name}{suffix}": value for name, value in {**values, **counts}.items()}
        left_out = [f"{metric.name} (needs {metric.min_images})" for metric in metrics if metric not in fitting]
        if left_out:
            _warn_once(", ".join(left_out), condition or "all images", min(len(images), len(real)))
    return results


@lru_cache(maxsize=1024)
def _warn_once(left_out: str, condition: str, num_images: int) -> None:
    """Say what is not measured; once a process, not again for every trial."""
    log.warning("Left out for %s, of which there are %d: %s.", condition, num_images, left_out)
