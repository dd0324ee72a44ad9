"""Vendi score: the effective number of different images in a set."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import as_features


def vendi_score(features: ArrayLike, order: float = 1.0) -> float:
    """Effective number of distinct images under the cosine kernel.

    Args:
        features: float[n, d], one row an image.
        order: q >= 0 of the Rényi entropy; 1 is Shannon's, infinity sees the largest eigenvalue only, 0 the rank.

    Returns:
        A value in [1, min(n, d)]; higher means more diverse.

    Raises:
        ValueError: fewer than two images, NaN or infinity, a row of zeros, or an order below 0.

    Source:
        Friedman and Dieng 2023, definition 3.1; orders: Pasarkar and Dieng 2024. The non-zero eigenvalues of K/n,
        n x n, are those of X^T X/n, d x d, X the rows at unit length; the smaller of the two is taken.
    """
    if np.isnan(order) or order < 0:
        raise ValueError(f"`order` must be a number >= 0 or infinity, but got {order}. Use 1 for the usual score.")
    return _effective_number(_spectrum(_unit_rows(as_features(features, "features"))), order)


def _unit_rows(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at length one."""
    largest = np.abs(array).max(axis=1, keepdims=True)
    if not (largest > 0).all():
        raise ValueError(
            f"`features` must have no row of zeros, but got {np.count_nonzero(largest == 0)} of {len(array)}. "
            "The cosine kernel is undefined there; look for blank images or a dead extractor."
        )
    scaled = array / largest
    unit: NDArray[np.float64] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


def _spectrum(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive eigenvalues of K/n, which sum to one; what round-off leaves of zeros is dropped."""
    num_images, dim = rows.shape
    gram = rows.T @ rows if dim < num_images else rows @ rows.T
    eigenvalues = np.linalg.eigvalsh(gram / num_images)
    noise = eigenvalues[-1] * max(rows.shape) * np.finfo(np.float64).eps
    kept = eigenvalues[eigenvalues > noise]
    spectrum: NDArray[np.float64] = kept / kept.sum()
    return spectrum


def _effective_number(spectrum: NDArray[np.float64], order: float) -> float:
    """Exponential of the Rényi entropy."""
    if order == 1:
        return float(np.exp(-(spectrum * np.log(spectrum)).sum()))
    if np.isinf(order):
        return float(1 / spectrum.max())
    log_powers = order * np.log(spectrum)
    peak = log_powers.max()
    return float(np.exp((peak + np.log(np.exp(log_powers - peak).sum())) / (1 - order)))
