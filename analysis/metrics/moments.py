"""Mean and covariance of a set of features, taken by blocks and added up over parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.sets import SUM_ROWS, FeatureSet, as_set


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """Mean and sum of squares about it.

    Attributes:
        num_images: n, the images that are summed.
        mean: float64[d], of each feature.
        matrix: float64[d, d], the sum of (x - mean)(x - mean)^T.
    """

    num_images: int
    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @classmethod
    def of(cls, images: FeatureSet) -> Scatter:
        """Scatter of a set, from those of its parts where it has any."""
        if images.parts:
            return cls.together([part.derived(Scatter.of) for part in images.parts])
        mean = mean_of(images)
        matrix = np.zeros((images.dim, images.dim))
        for block in images.blocks(SUM_ROWS):
            centred = block - mean
            matrix += centred.T @ centred
        return cls(num_images=len(images), mean=mean, matrix=matrix)

    @classmethod
    def together(cls, parts: Iterable[Scatter]) -> Scatter:
        """Scatter of disjoint sets together.

        Source:
            Chan, Golub and LeVeque 1983, eq. 2.1: only positive terms are added, so that nothing cancels.
        """
        parts = tuple(parts)
        num_images = sum(part.num_images for part in parts)
        mean = sum((part.num_images / num_images * part.mean for part in parts), np.zeros_like(parts[0].mean))
        matrix = np.zeros_like(parts[0].matrix)
        for part in parts:
            shift = np.sqrt(part.num_images) * (part.mean - mean)
            matrix += part.matrix
            matrix += np.outer(shift, shift)
        return cls(num_images=num_images, mean=mean, matrix=matrix)

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Unbiased covariance float64[d, d]."""
        return self.matrix / (self.num_images - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceMoments:
    """Mean and covariance S of a set of features, the covariance kept as a factor F with F^T F = S.

    Computed once, compared with many generated sets. F is the symmetric square root of S, or the centred data itself
    where there are fewer images than dimensions.

    Attributes:
        mean: float64[d], of each feature.
        factor: float64[k, d], k = min(n, d).
        num_images: n, the images of the set.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
    num_images: int

    @classmethod
    def of(cls, features: ArrayLike | FeatureSet) -> ReferenceMoments:
        """Moments of float[n, d] features, with the unbiased covariance."""
        images = as_set(features, "reference")
        if len(images) < images.dim:
            return cls(mean=mean_of(images), factor=centred_rows(images), num_images=len(images))
        scatter = images.derived(Scatter.of)
        return cls(mean=scatter.mean, factor=_square_root(scatter.covariance), num_images=len(images))

    @property
    def dim(self) -> int:
        """Number of features d."""
        return len(self.mean)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.square(self.factor).sum())


def mean_of(images: FeatureSet) -> NDArray[np.float64]:
    """Mean float64[d] of a set."""
    total = np.zeros(images.dim)
    for block in images.blocks(SUM_ROWS):
        total += block.sum(axis=0)
    return total / len(images)


def centred_rows(images: FeatureSet) -> NDArray[np.float64]:
    """Rows X with X^T X the unbiased covariance."""
    rows: NDArray[np.float64] = (images.rows() - mean_of(images)) / np.sqrt(len(images) - 1)
    return rows


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))) @ vectors.T
    return root
