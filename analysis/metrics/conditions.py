"""Metrics over all images and over those of each condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.base import Metric, Reference
from analysis.metrics.inputs import as_features
from analysis.names import nearest

Labels = Sequence[str] | Sequence[tuple[str, ...]]
"""For each image its condition, or all of its conditions."""


class LabelledFeatures:
    """Features of images whose conditions are known; what is derived per condition is computed once and kept."""

    def __init__(self, features: ArrayLike, labels: Labels) -> None:
        """Keep float[n, d] features and the conditions of each of the n images.

        Raises:
            ValueError: the features are not valid, or there are more or fewer labels than images.
        """
        self.features = as_features(features, "features")
        self.labels = tuple((label,) if isinstance(label, str) else tuple(label) for label in labels)
        if len(self.labels) != len(self.features):
            raise ValueError(
                f"`labels` must name the conditions of each of {len(self.features)} images, but got "
                f"{len(self.labels)}. Give one entry an image."
            )
        self.reference = lru_cache(maxsize=None)(self._reference)

    def __len__(self) -> int:
        return len(self.features)

    def __reduce__(self) -> tuple[type[LabelledFeatures], tuple[NDArray[np.float64], Labels]]:
        return LabelledFeatures, (self.features, self.labels)

    def counts(self) -> dict[str, int]:
        """Number of images with each condition, most frequent first."""
        names = sorted({name for label in self.labels for name in label})
        counts = {name: sum(name in label for label in self.labels) for name in names}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def of(self, condition: str | None) -> NDArray[np.float64]:
        """Features of the images with a condition, or of all.

        Raises:
            ValueError: fewer than two images have the condition.
        """
        if condition is None:
            return self.features
        chosen = [condition in label for label in self.labels]
        if sum(chosen) < 2:
            raise ValueError(
                f"`{condition}` must have at least 2 images for a metric of its own, but got {sum(chosen)}."
                f"{nearest(self.counts(), condition)} There are {self.counts()}. Add images or leave the condition out."
            )
        subset: NDArray[np.float64] = self.features[np.asarray(chosen)]
        return subset

    def _reference(self, condition: str | None) -> Reference:
        return Reference(self.of(condition))


def evaluate(
    metrics: Iterable[Metric],
    generated: LabelledFeatures,
    reference: LabelledFeatures,
    *,
    extractor: str,
    conditions: Sequence[str] = (),
) -> dict[str, float]:
    """Every metric over all images and over those of each condition, with the numbers of images behind them.

    Args:
        metrics: what to evaluate.
        generated: features and conditions of generated images.
        reference: the same of real images; keep one object and its moments are computed once.
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
        images, real = generated.of(condition), reference.reference(condition)
        values: Mapping[str, float] = {m.reported_name(extractor): m.fn(images, real) for m in metrics}
        counts = {"num_generated": len(images), "num_reference": len(real)}
        results |= {f"{name}{suffix}": value for name, value in {**values, **counts}.items()}
    return results
