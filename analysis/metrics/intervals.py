"""Confidence intervals of metrics by resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PairFunction = Callable[[NDArray[Any], NDArray[Any]], float]
"""A number made of generated and reference rows: a metric's `fn`, or any function of two arrays."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: of all images.
        low, high: where the value at these numbers of images is expected to lie, on average over new samples; not cut
            to the metric's range.
        confidence: the share of such intervals that hold it.
        num_resamples: how many halves were drawn.
    """

    value: float
    low: float
    high: float
    confidence: float
    num_resamples: int


def bootstrap_interval(
    metric: PairFunction,
    generated: ArrayLike,
    reference: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 200,
    paired: bool = False,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a metric from random halves of both sets, drawn without replacement.

    Drawing with replacement, as the ordinary bootstrap does, repeats images; these shrink every distance between
    neighbours, count as lost diversity and add to the bias of a Fréchet distance. Halves hold no image twice, and the
    spread of their values around the values' own mean equals that of the full sample around its expectation, so that
    the bias that belongs to half the images drops out. What remains is the bias at the full number of images: the
    interval is for the value expected there, not for infinitely many images. It needs independent images, and a metric
    that is smooth in the distribution; it is too wide for a Fréchet distance close to its bias.

    Args:
        metric: of float[b, ...] generated and float[c, ...] reference rows, for example `METRICS["fid"].fn`.
        generated: real[n, ...], n >= 4, one row an image.
        reference: real[m, ...], m >= 4.
        confidence: in (0, 1).
        num_resamples: how many halves; each costs one evaluation of the metric.
        paired: whether row i of one set belongs to row i of the other, as an image to its reconstruction or prompt.
        seed: of the halves.

    Raises:
        ValueError: too few images for halves, a confidence outside (0, 1), fewer than two resamples, paired sets of
            different length, or whatever the metric refuses.

    Source:
        Politis and Romano 1994, section 2 (subsampling); Shao and Wu 1989 (delete-d jackknife, whose scale is
        sqrt(b / (n - b)) for b of n images kept, which is 1 for halves).
    """
    images, real = np.asarray(generated), np.asarray(reference)
    _check(len(images), len(real), paired)
    _check_choice(confidence, num_resamples)
    value = float(metric(images, real))
    values = half_sample_values(metric, images, real, num_resamples=num_resamples, paired=paired, seed=seed)
    tails = np.quantile(values - values.mean(), [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = value - _scale(min(len(images), len(real))) * tails[::-1]
    return Interval(
        value=value, low=float(low), high=float(high), confidence=confidence, num_resamples=num_resamples
    )  # fmt: skip


def half_sample_values(
    metric: PairFunction,
    generated: NDArray[Any],
    reference: NDArray[Any],
    *,
    num_resamples: int,
    paired: bool = False,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The metric of random halves of both sets, float64[num_resamples]."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        chosen = rng.permutation(len(generated))[: len(generated) // 2]
        real_chosen = chosen if paired else rng.permutation(len(reference))[: len(reference) // 2]
        values.append(float(metric(generated[chosen], reference[real_chosen])))
    return np.array(values)


def _scale(num_images: int) -> float:
    """What makes the spread of halves that of the whole; below one where the number of images is odd."""
    kept = num_images // 2
    return float(np.sqrt(kept / (num_images - kept)))


def _check(num_generated: int, num_reference: int, paired: bool) -> None:
    if min(num_generated, num_reference) < 4:
        raise ValueError(
            f"`bootstrap_interval` must have at least 4 images in each set, but got {num_generated} and "
            f"{num_reference}. Evaluate on more images."
        )
    if paired and num_generated != num_reference:
        raise ValueError(
            f"`paired` sets must be equally long, but got {num_generated} and {num_reference}. "
            "Give one reference row for each generated one, or paired=False."
        )


def _check_choice(confidence: float, num_resamples: int) -> None:
    if not 0 < confidence < 1 or num_resamples < 2:
        raise ValueError(
            f"`confidence` must lie in (0, 1) and `num_resamples` be at least 2, but got {confidence} and "
            f"{num_resamples}. 0.95 and 200 are usual."
        )
