"""Fréchet distance at infinitely many images, from how it falls as images are added."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.frechet import frechet_distance
from analysis.metrics.inputs import as_features, require_same_dim
from analysis.metrics.intervals import Rows, by_size, group_codes, half_samples

Grouped = tuple[NDArray[np.float64], Rows]
"""Rows and the group of each, numbered from 0 on."""


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
    generated: ArrayLike,
    reference: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    num_sizes: int = 4,
    num_halves: int = 10,
    seed: int = 0,
) -> Extrapolation:
    """Fréchet distance extrapolated to infinitely many images of both sets.

    Both sets are cut into k disjoint parts, k = 1, 2, ..., `num_sizes`; the mean distance of parts grows as k/n, and
    the line through it is read at k = 0. Parts of one size are disjoint, so that every image counts once at each.
    Unlike the distance itself, values at different numbers of images may be compared, within their standard errors.
    The mean distance grows as k/n only where the smallest parts have many more images than the features have effective
    dimensions; below, the value is still biased upwards, and `curvature` shows it. A patient's films stay in one part:
    spread over parts they would count for more in the small ones, and the line would not be straight.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        groups: [m], the patient of each real image; None if each is of its own.
        num_sizes: how many sizes, at least 3; the smallest parts have n / num_sizes images.
        num_halves: how many random halves the standard error is taken from; each costs about half of the value.
        seed: of the cuts.

    Raises:
        ValueError: fewer than 4 images, or patients, for each part of the smallest size, NaN or infinity, different
            dimensions, or not one group an image.

    Source:
        Chong and Forsyth 2020, section 3 (linear in 1/n), here with both sets cut, since either one's number of images
        makes a bias; standard error by the delete-half jackknife, Shao and Wu 1989.
    """
    images, real = as_features(generated, "generated"), as_features(reference, "reference")
    require_same_dim(images.shape[1], real.shape[1])
    codes, image_codes = group_codes(groups, len(real)), np.arange(len(images))
    _check_sizes(min(len(images), len(np.unique(codes))), num_sizes, num_halves)
    distances = _distances((images, image_codes), (real, codes), num_sizes, np.random.default_rng(seed))
    halves = [
        _intercept(
            _distances(
                (images[rows], image_codes[: len(rows)]),
                (real[real_rows], group_codes(codes[real_rows], len(real_rows))),
                num_sizes,
                np.random.default_rng(seed),
            )
        )
        for rows, real_rows in half_samples(len(images), codes, num_resamples=num_halves, seed=seed)
    ]
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
            f"{num_halves} and {num_images} images or patients. Take fewer sizes or more images."
        )


def _distances(images: Grouped, real: Grouped, num_sizes: int, rng: np.random.Generator) -> list[float]:
    """Mean distance of 1, 2, ..., `num_sizes` disjoint parts."""
    means = []
    for num_parts in range(1, num_sizes + 1):
        pairs = zip(_parts(images, num_parts, rng), _parts(real, num_parts, rng), strict=True)
        means.append(float(np.mean([frechet_distance(*pair) for pair in pairs])))
    return means


def _parts(grouped: Grouped, num_parts: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Parts of equally many groups, dealt by size; what is left over is left out."""
    rows, codes = grouped
    order = by_size(codes, rng)
    order = order[: len(order) // num_parts * num_parts]
    return [rows[np.isin(codes, order[start::num_parts])] for start in range(num_parts)]


def _intercept(distances: list[float], degree: int = 1) -> float:
    """The straight line, or a parabola, through the distances over the number of parts, at none."""
    return float(np.polyfit(np.arange(1, len(distances) + 1), distances, degree)[-1])
