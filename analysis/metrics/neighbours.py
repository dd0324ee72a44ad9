"""Precision, recall, density and coverage: which images lie among those of the other set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import require_same_dim
from analysis.metrics.moments import mean_of
from analysis.metrics.sets import FeatureSet, as_set

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
TIE_TOLERANCE = 1e-9
"""A point that is farther out than a ball's radius by no more than this share of it counts as inside, so that rounding
decides nothing."""


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of generated images among the real ones, and of real images among the generated ones.

    Attributes:
        precision: share of generated images that lie among real ones, in [0, 1]; higher is better.
        recall: share of real images that lie among generated ones, in [0, 1]; higher is better.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely real images surround a generated one, about 1 where the sets are alike; share of real images met.

    Attributes:
        density: real neighbourhoods that a generated image lies in, over their number for equal sets, in [0, inf);
            higher is better.
        coverage: share of real images with a generated one among their neighbours, in [0, 1]; higher is better.
    """

    density: float
    coverage: float


@dataclass(frozen=True, eq=False)
class _Hits:
    """Points in balls: for each point the number of balls around it, for each ball whether it holds a point."""

    per_point: NDArray[np.int64]
    ball_is_met: NDArray[np.bool_]


def precision_recall(
    generated: ArrayLike | FeatureSet,
    reference: ArrayLike | FeatureSet,
    num_neighbours: int = PRECISION_NEIGHBOURS,
) -> PrecisionRecall:
    """Share of generated images within the manifold of the real ones, and the reverse.

    A manifold is the union of balls around each image that reach to its k-th nearest neighbour in its own set. Both
    shares depend on the numbers of images: compare values at one number only.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        num_neighbours: k.

    Returns:
        Precision (fidelity) and recall (diversity), each in [0, 1]; higher is better.

    Raises:
        ValueError: k is below 1, a set has no more than k images, NaN or infinity, or different dimensions.

    Source:
        Kynkäänniemi et al. 2019, eq. 1 and 2; k = 3 as there.
    """
    images, real = _checked(generated, reference, num_neighbours)
    return PrecisionRecall(precision(images, real, num_neighbours), recall(images, real, num_neighbours))


def density_coverage(
    generated: ArrayLike | FeatureSet,
    reference: ArrayLike | FeatureSet,
    num_neighbours: int = DENSITY_NEIGHBOURS,
) -> DensityCoverage:
    """How many balls of real images a generated one lies in, over k, and the share of balls that hold one.

    Outliers among the real images weigh less than in precision, and generated outliers not at all in coverage.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images.
        num_neighbours: k.

    Returns:
        Density in [0, m/k], expected to be 1 where the two distributions are one, and coverage in [0, 1]; higher is
        better.

    Raises:
        ValueError: k is below 1, a set has no more than k images, NaN or infinity, or different dimensions.

    Source:
        Naeem et al. 2020, eq. 4 and 5; k = 5 as there. Balls hold their edge, as in precision and recall.
    """
    images, real = _checked(generated, reference, num_neighbours)
    return DensityCoverage(density(images, real, num_neighbours), coverage(images, real, num_neighbours))


def precision(generated: FeatureSet, reference: FeatureSet, num_neighbours: int = PRECISION_NEIGHBOURS) -> float:
    """Precision alone, of two sets.

    Args:
        generated: features of generated images.
        reference: features of real images.
        num_neighbours: k, the neighbour that each ball reaches to.
    """
    return float((_in_balls_of(generated, reference, num_neighbours).per_point > 0).mean())


def recall(generated: FeatureSet, reference: FeatureSet, num_neighbours: int = PRECISION_NEIGHBOURS) -> float:
    """Recall alone, of two sets.

    Args:
        generated: features of generated images.
        reference: features of real images.
        num_neighbours: k, the neighbour that each ball reaches to.
    """
    require_same_dim(generated.dim, reference.dim)
    return float((_hits(generated, reference, num_neighbours).per_point > 0).mean())


def density(generated: FeatureSet, reference: FeatureSet, num_neighbours: int = DENSITY_NEIGHBOURS) -> float:
    """Density alone, of two sets.

    Args:
        generated: features of generated images.
        reference: features of real images.
        num_neighbours: k, the neighbour that each ball reaches to.
    """
    return float(_in_balls_of(generated, reference, num_neighbours).per_point.mean() / num_neighbours)


def coverage(generated: FeatureSet, reference: FeatureSet, num_neighbours: int = DENSITY_NEIGHBOURS) -> float:
    """Coverage alone, of two sets.

    Args:
        generated: features of generated images.
        reference: features of real images.
        num_neighbours: k, the neighbour that each ball reaches to.
    """
    return float(_in_balls_of(generated, reference, num_neighbours).ball_is_met.mean())


def nearest_distances(images: FeatureSet, num_neighbours: int) -> NDArray[np.float64]:
    """Squared distances of each image to its nearest others of the same set, nearest first, float64[n, k]."""
    kept = max(num_neighbours, min(DENSITY_NEIGHBOURS, len(images) - 1))  # one pass for the table's two numbers
    return images.derived(_nearest, kept)[:, :num_neighbours]


def _checked(
    generated: ArrayLike | FeatureSet, reference: ArrayLike | FeatureSet, num_neighbours: int
) -> tuple[FeatureSet, FeatureSet]:
    images, real = as_set(generated, "generated"), as_set(reference, "reference")
    require_same_dim(images.dim, real.dim)
    fewest = min(len(images), len(real))
    if not 1 <= num_neighbours < fewest:
        raise ValueError(
            f"`num_neighbours` must be at least 1 and below the number of images of both sets, but got "
            f"{num_neighbours} with {len(images)} generated and {len(real)} real. Evaluate on more images."
        )
    return images, real


def _in_balls_of(generated: FeatureSet, reference: FeatureSet, num_neighbours: int) -> _Hits:
    """Generated images in balls of real ones; kept with the generated set, which does not outlive the reference."""
    require_same_dim(generated.dim, reference.dim)
    return generated.derived(_hits_of_points, reference, num_neighbours)


def _hits_of_points(points: FeatureSet, balls: FeatureSet, num_neighbours: int) -> _Hits:
    return _hits(balls, points, num_neighbours)


def _hits(balls: FeatureSet, points: FeatureSet, num_neighbours: int) -> _Hits:
    """Which points lie in which balls, summed up by blocks."""
    radii = nearest_distances(balls, num_neighbours)[:, -1] * (1 + TIE_TOLERANCE)
    centre = mean_of(balls)
    met = np.zeros(len(balls), dtype=bool)
    per_point = []
    for block in points.blocks():
        counts, at = np.zeros(len(block), dtype=np.int64), 0
        for ball_block in balls.blocks():
            here = slice(at, at + len(ball_block))
            inside = _squared_distances(block - centre, ball_block - centre) <= radii[here]
            counts += inside.sum(axis=1)
            met[here] |= inside.any(axis=0)
            at = here.stop
        per_point.append(counts)
    return _Hits(np.concatenate(per_point), met)


def _nearest(images: FeatureSet, num_neighbours: int) -> NDArray[np.float64]:
    """Squared distances to the nearest others: the smallest of every block, and of those the smallest."""
    centre, nearest, at = mean_of(images), [], 0
    for block in images.blocks():
        candidates, other_at = [], 0
        for other in images.blocks():
            distances = _squared_distances(block - centre, other - centre)
            if other_at == at:
                np.fill_diagonal(distances, np.inf)
            candidates.append(_smallest(distances, num_neighbours))
            other_at += len(other)
        nearest.append(np.sort(_smallest(np.concatenate(candidates, axis=1), num_neighbours), axis=1))
        at += len(block)
    return np.concatenate(nearest)


def _smallest(distances: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """The smallest of each row, in no order; all where there are no more."""
    if distances.shape[1] <= number:
        return distances
    smallest: NDArray[np.float64] = np.partition(distances, number - 1, axis=1)[:, :number]
    return smallest


def _squared_distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances between rows; what the expansion's round-off leaves between equal rows is zero."""
    sizes = np.add.outer(np.einsum("ij,ij->i", first, first), np.einsum("ij,ij->i", second, second))
    distances: NDArray[np.float64] = sizes - 2 * (first @ second.T)
    distances[distances < 4 * first.shape[1] * np.finfo(np.float64).eps * sizes] = 0.0
    return distances
