"""Fréchet distance between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import as_features

NEGATIVE_MASS_TOLERANCE = 1e-6
"""Largest share of the cross trace that round-off may leave in negative eigenvalues."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceMoments:
    """Mean and covariance S of a set of features, the covariance kept as a factor F with F^T F = S.

    Computed once, compared with many generated sets. F is the symmetric square root of S, or the centred data itself
    where there are fewer images than dimensions.

    Attributes:
        mean: float64[d].
        factor: float64[k, d], k = min(n, d).
        num_images: n.
    """

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]
    num_images: int

    @classmethod
    def of(cls, features: ArrayLike) -> ReferenceMoments:
        """Moments of float[n, d] features, with the unbiased covariance."""
        array = as_features(features, "reference")
        rows = _centred_rows(array)
        factor = rows if len(rows) < array.shape[1] else _square_root(rows.T @ rows)
        return cls(mean=array.mean(axis=0), factor=factor, num_images=len(array))

    @property
    def dim(self) -> int:
        """Number of features d."""
        return len(self.mean)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.square(self.factor).sum())


def frechet_distance(generated: ArrayLike, reference: ArrayLike | ReferenceMoments) -> float:
    """Squared Fréchet (2-Wasserstein) distance between the Gaussians fitted to two sets of features.

    The estimate is biased upwards, the more so the fewer images: compare values at one number of images only.

    Args:
        generated: float[n, d] features of generated images.
        reference: float[m, d] features of real images, or their moments.

    Returns:
        A value in [0, inf); lower is better.

    Raises:
        ValueError: fewer than two images, NaN or infinity, or different dimensions.
        FloatingPointError: round-off left more negative eigenvalue mass than can be clipped.

    Source:
        Heusel et al. 2017, eq. 6; trace of the root of S_g S_r from the eigenvalues of h S_g h, h the symmetric root of
        S_r, or, with n < d, from the singular values of X_g F^T, which avoids squaring.
    """
    array = as_features(generated, "generated")
    moments = reference if isinstance(reference, ReferenceMoments) else ReferenceMoments.of(reference)
    if array.shape[1] != moments.dim:
        raise ValueError(
            "`generated` and `reference` must have the same number of features, "
            f"but got {array.shape[1]} and {moments.dim}. Extract both with one extractor."
        )
    rows = _centred_rows(array)
    between_means = float(np.square(array.mean(axis=0) - moments.mean).sum())
    distance = between_means + float(np.square(rows).sum()) + moments.trace - 2 * _cross_trace(rows, moments)
    return max(distance, 0.0)


def _cross_trace(rows: NDArray[np.float64], moments: ReferenceMoments) -> float:
    """Trace of the square root of S_g S_r."""
    projected = rows @ moments.factor.T
    if len(rows) < moments.dim:
        return float(np.linalg.svd(projected, compute_uv=False).sum())
    return _root_trace(projected.T @ projected)


def _root_trace(matrix: NDArray[np.float64]) -> float:
    """Trace of the square root of a positive semi-definite matrix, its negative round-off clipped and accounted for."""
    eigenvalues = np.linalg.eigvalsh(matrix)
    negative, positive = -eigenvalues[eigenvalues < 0].sum(), eigenvalues[eigenvalues > 0].sum()
    if negative > NEGATIVE_MASS_TOLERANCE * positive:
        raise FloatingPointError(
            f"`negative eigenvalues` must stay below {NEGATIVE_MASS_TOLERANCE:g} of the positive ones, "
            f"but got {negative:.3g} against {positive:.3g}. Rescale the features."
        )
    return float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum())


def _centred_rows(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows X with X^T X the unbiased covariance."""
    rows: NDArray[np.float64] = (array - array.mean(axis=0)) / np.sqrt(len(array) - 1)
    return rows


def _square_root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))) @ vectors.T
    return root
