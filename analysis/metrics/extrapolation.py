"""Fréchet distance at infinitely many images, from how it falls as images are added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.frechet import frechet_distance
from analysis.metrics.inputs import as_features, require_same_dim
from analysis.metrics.intervals import half_sample_values


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """A distance at infinitely many images, and the line that it was read from.

    Attributes:
        value: the intercept; may lie a little below zero where the two distributions are one. Lower is better.
        sampling_error: standard error of the value on new images, from random halves.
        curvature: how far a parabola's intercept lies from the line's: what the line's assumption may cost.
        fractions: shares 1, 1/2, 1/3, ... of the images that were compared.
        distances: mean Fréchet distance at each share.
    """

    value: float
    sampling_error: float
    curvature: float
    fractions: tuple[float, ...]
    distances: tuple[float, ...]

    @property
    def standard_error(self) -> float:
        """Both errors together; large where the parts have too few images for their dimension for a straight line."""
        return math.hypot(self.sampling_error, self.curvature)


def extrapolated_frechet_distance(
    generated: ArrayLike, reference: ArrayLike, *, num_sizes: int = 4, num_halves: int = 10, seed: int = 0
) -> Extrapolation:
    """Fréchet distance extrapolated to infinitely many images of both sets.

    Both sets are cut into k disjoint parts, k = 1, 2, ..., `num_sizes`; the mean distance of parts grows as k/n, and the
    line through it is read at k = 0. Parts of one size are disjoint, so that every image counts once at each.
    Unlike the distance itself, values at different numbers of images may be compared, within their standard errors.
    The mean distance grows as k/n only where the smallest parts have many more images than the features have effective
    dimensions; below, the value is still biased upwards, and `curvature` shows it.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        num_sizes: how many sizes, at least 3; the smallest parts have n / num_sizes images.
        num_halves: how many random halves the standard error is taken from; each costs about half of the value.
        seed: of the cuts.

    Raises:
        ValueError: fewer than 4 images for each part of the smallest size, NaN or infinity, or different dimensions.

    Source:
        Chong and Forsyth 2020, section 3 (linear in 1/n), here with both sets cut, since either one's number of images
        makes a bias; standard error by the delete-half jackknife, Shao and Wu 1989.
    """
    images, real = as_features(generated, "generated"), as_features(reference, "reference")
    require_same_dim(images.shape[1], real.shape[1])
    _check_sizes(min(len(images), len(real)), num_sizes, num_halves)
    distances = _distances(images, real, num_sizes, np.random.default_rng(seed))

    def value_of(half: NDArray[Any], real_half: NDArray[Any]) -> float:
        return _intercept(_distances(half, real_half, num_sizes, np.random.default_rng(seed)))

    halves = half_sample_values(value_of, images, real, num_resamples=num_halves, seed=seed)
    return Extrapolation(
        value=_intercept(distances),
        sampling_error=float(np.std(halves, ddof=1)),
        curvature=abs(_intercept(distances, degree=2) - _intercept(distances)),
        fractions=tuple(1 / number for number in range(1, num_sizes + 1)),
        distances=tuple(distances),
    )


def _check_sizes(num_images: int, num_sizes: int, num_halves: int) -> None:
    if num_sizes < 3 or num_halves < 2 or num_images < 4 * num_sizes:
        raise ValueError(
            f"`num_sizes` must be at least 3, `num_halves` 2, and each set hold 4 images a size, but got {num_sizes}, "
            f"{num_halves} and {num_images} images. Take fewer sizes or more images."
        )


def _distances(
    images: NDArray[np.float64], real: NDArray[np.float64], num_sizes: int, rng: np.random.Generator
) -> list[float]:
    """Mean distance of 1, 2, ..., `num_sizes` disjoint parts."""
    images, real = rng.permutation(images), rng.permutation(real)
    means = []
    for num_parts in range(1, num_sizes + 1):
        pairs = zip(_equal_parts(images, num_parts), _equal_parts(real, num_parts), strict=True)
        means.append(float(np.mean([frechet_distance(*pair) for pair in pairs])))
    return means


def _equal_parts(array: NDArray[np.float64], num_parts: int) -> list[NDArray[np.float64]]:
    """Parts of exactly n // num_parts rows; what is left over is left out."""
    size = len(array) // num_parts
    return [array[start : start + size] for start in range(0, size * num_parts, size)]


def _intercept(distances: list[float], degree: int = 1) -> float:
    """The straight line, or a parabola, through the distances over the number of parts, at none."""
    return float(np.polyfit(np.arange(1, len(distances) + 1), distances, degree)[-1])
