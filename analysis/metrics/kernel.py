"""Kernel distance (KID) between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import require_same_dim
from analysis.metrics.sets import FeatureSet, as_set


@dataclass(frozen=True, kw_only=True)
class SubsetEstimate:
    """Mean and standard deviation over random subsets, how many there were and of how many images each.

    Attributes:
        mean: over the subsets; lower is better.
        std: over the subsets: of one subset, no error of the mean.
        num_subsets: how many pairs of subsets.
        subset_size: how many images each of both subsets has.
    """

    mean: float
    std: float
    num_subsets: int
    subset_size: int


def kernel_distance(generated: ArrayLike | FeatureSet, reference: ArrayLike | FeatureSet) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y/d + 1)^3, over all pairs of images, by blocks.

    The estimate is unbiased at any number of images; it is a little below zero about half the time where the two
    distributions are one.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.

    Returns:
        A value around [0, inf); lower is better.

    Raises:
        ValueError: fewer than two images, NaN or infinity, or different dimensions.

    Source:
        Bińkowski et al. 2018, eq. 4 (unbiased estimator of Gretton et al. 2012, eq. 3) and section 3.1 (the kernel).
    """
    images, real = as_set(generated, "generated"), as_set(reference, "reference")
    require_same_dim(images.dim, real.dim)
    across = _sum_across(images, real) / (len(images) * len(real))
    return images.derived(_mean_within) + real.derived(_mean_within) - 2 * across


def kernel_distance_by_subsets(
    generated: ArrayLike, reference: ArrayLike, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> SubsetEstimate:
    """Mean kernel distance of random subsets without replacement, as published values are usually taken.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        num_subsets: how many pairs of subsets.
        subset_size: images in each; at most n and m.
        seed: of the choice.

    Returns:
        Mean (lower is better) and standard deviation; the latter is that of one subset, no error of the mean.

    Raises:
        ValueError: as `kernel_distance`, or a subset larger than a set, or no subset.
    """
    images, real = as_set(generated, "generated").rows(), as_set(reference, "reference").rows()
    _check_subsets(num_subsets, subset_size, min(len(images), len(real)))
    rng = np.random.default_rng(seed)
    values = [
        kernel_distance(
            images[rng.choice(len(images), subset_size, replace=False)],
            real[rng.choice(len(real), subset_size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return SubsetEstimate(
        mean=float(np.mean(values)), std=float(np.std(values)), num_subsets=num_subsets, subset_size=subset_size
    )


def _check_subsets(num_subsets: int, subset_size: int, num_images: int) -> None:
    if num_subsets < 1 or not 2 <= subset_size <= num_images:
        raise ValueError(
            f"`num_subsets` must be at least 1 and `subset_size` in 2..{num_images}, the images of the smaller set, "
            f"but got {num_subsets} and {subset_size}. Take smaller subsets, or `kernel_distance`, which takes all."
        )


def _kernel(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    base: NDArray[np.float64] = first @ second.T
    base /= first.shape[1]
    base += 1
    return base * base * base  # numpy raises to a power far slower than it multiplies


def _mean_within(images: FeatureSet) -> float:
    """Mean of the kernel over all pairs of different images of a set."""
    total = 0.0
    for number, block in enumerate(images.blocks()):
        for other_number, other in enumerate(images.blocks()):
            if other_number == number:
                kernel = _kernel(block, block)
                total += float(kernel.sum() - np.trace(kernel))
            elif other_number > number:
                total += 2 * float(_kernel(block, other).sum())
    return total / (len(images) * (len(images) - 1))


def _sum_across(images: FeatureSet, real: FeatureSet) -> float:
    """Sum of the kernel over all pairs of one image of each set."""
    return sum(float(_kernel(block, other).sum()) for block in images.blocks() for other in real.blocks())
