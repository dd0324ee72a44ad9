"""Fréchet distance between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import require_same_dim
from analysis.metrics.moments import ReferenceMoments, Scatter, centred_rows, mean_of
from analysis.metrics.sets import FeatureSet, as_set

NEGATIVE_MASS_TOLERANCE = 1e-6
"""Largest share of the cross trace that round-off may leave in negative eigenvalues."""


@dataclass(frozen=True, kw_only=True)
class FrechetTerms:
    """A Fréchet distance and what it is made of.

    Attributes:
        means: squared distance of the means.
        traces: trace of both covariances.
        cross_trace: trace of the square root of their product.
        clipped_mass: sum of the negative eigenvalues that round-off left and that were set to zero, over the sum of the
            positive ones; in [0, 1e-6], and 0 where n < d, where none can arise.
    """

    means: float
    traces: float
    cross_trace: float
    clipped_mass: float

    @property
    def distance(self) -> float:
        """The distance, in [0, inf); lower is better."""
        return max(self.means + self.traces - 2 * self.cross_trace, 0.0)


def frechet_distance(generated: ArrayLike | FeatureSet, reference: ArrayLike | FeatureSet | ReferenceMoments) -> float:
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
    return frechet_terms(generated, reference).distance


def frechet_terms(
    generated: ArrayLike | FeatureSet, reference: ArrayLike | FeatureSet | ReferenceMoments
) -> FrechetTerms:
    """The same with its terms, and with how much round-off had to be clipped."""
    images = as_set(generated, "generated")
    moments = _moments(reference)
    require_same_dim(images.dim, moments.dim)
    return _of_few(images, moments) if len(images) < images.dim else _of_many(images, moments)


def _moments(reference: ArrayLike | FeatureSet | ReferenceMoments) -> ReferenceMoments:
    if isinstance(reference, ReferenceMoments):
        return reference
    return as_set(reference, "reference").derived(ReferenceMoments.of)


def _of_few(images: FeatureSet, moments: ReferenceMoments) -> FrechetTerms:
    """Fewer images than dimensions: singular values of the rows in the reference's factor."""
    rows = centred_rows(images)
    return FrechetTerms(
        means=float(np.square(mean_of(images) - moments.mean).sum()),
        traces=float(np.square(rows).sum()) + moments.trace,
        cross_trace=float(np.linalg.svd(rows @ moments.factor.T, compute_uv=False).sum()),
        clipped_mass=0.0,
    )


def _of_many(images: FeatureSet, moments: ReferenceMoments) -> FrechetTerms:
    """The case of at least as many images as dimensions: eigenvalues of the covariance between the reference's factors."""
    scatter = images.derived(Scatter.of)
    covariance = scatter.covariance
    cross_trace, clipped_mass = _root_trace(moments.factor @ covariance @ moments.factor.T)
    return FrechetTerms(
        means=float(np.square(scatter.mean - moments.mean).sum()),
        traces=float(np.trace(covariance)) + moments.trace,
        cross_trace=cross_trace,
        clipped_mass=clipped_mass,
    )


def _root_trace(matrix: NDArray[np.float64]) -> tuple[float, float]:
    """Trace of the square root of a positive semi-definite matrix, and the share of negative round-off clipped."""
    eigenvalues = np.linalg.eigvalsh(matrix)
    negative, positive = float(-eigenvalues[eigenvalues < 0].sum()), float(eigenvalues[eigenvalues > 0].sum())
    if negative > NEGATIVE_MASS_TOLERANCE * positive:
        raise FloatingPointError(
            f"`negative eigenvalues` must stay below {NEGATIVE_MASS_TOLERANCE:g} of the positive ones, "
            f"but got {negative:.3g} against {positive:.3g}. Rescale the features."
        )
    clipped_mass = negative / positive if positive > 0 else 0.0
    return float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()), clipped_mass
