"""How far metrics of several sets of images may be off together: values on resampled images and patients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.base import Metric
from analysis.metrics.intervals import group_codes, half_samples
from analysis.metrics.sets import FeatureSet

NUM_RESAMPLES: Final = 64
FEWEST: Final = 4
"""The fewest images, and the fewest groups, of which `bootstrap_interval` makes halves."""


def resampled_values(
    metrics: Iterable[Metric],
    generated: ArrayLike,
    reference: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """What each metric might as well have been, had other images been generated and other patients been seen.

    Metrics are taken on the random halves of `bootstrap_interval`, and their deviations from the halves' mean are put
    around the value of all images. The same seed draws the same halves of any sets of the same size. So where every model
    generates for the same prompts and is compared with the same films, row k of one model belongs to row k of another:
    what a resample of the patients does to both falls out of their difference.

    Args:
        metrics: those without an interval by halves, or with too few images in a half, are left out.
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        groups: [m], whom each reference image is of; None if each is of its own.
        num_resamples: how many.
        seed: of the halves.

    Returns:
        By the metric's name float[num_resamples], whose mean is the metric's value and whose standard deviation is its
        standard error; nothing where there are fewer than 4 images or groups.

    Raises:
        ValueError: the features are not valid, or not one group an image.

    Source:
        Politis and Romano 1994, section 2, with groups; see `bootstrap_interval`.
    """
    images, real = np.asarray(generated), np.asarray(reference)
    codes = group_codes(groups, len(real))
    if min(len(images), int(codes.max(initial=-1)) + 1) < FEWEST:
        return {}
    halves = [
        (FeatureSet(images[chosen]), FeatureSet(real[others]))
        for chosen, others in half_samples(len(images), codes, num_resamples=num_resamples, seed=seed)
    ]
    fewest = min(min(len(first), len(other)) for first, other in halves)
    return {
        metric.name: _around(metric, metric.fn(images, real), [metric.fn(*half) for half in halves])
        for metric in metrics
        if metric.spread is not None and metric.fits(fewest, fewest)
    }


def _around(metric: Metric, value: float, halves: list[float]) -> NDArray[np.float64]:
    """The halves' deviations from their mean, around the value of all images."""
    values = np.array(halves)
    deviations = values - values.mean()
    if metric.spread == "relative" and values.mean():
        deviations = deviations * abs(value / values.mean())
    around: NDArray[np.float64] = value + deviations
    return around
