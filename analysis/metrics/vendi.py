"""Vendi score: the effective number of different images in a set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import as_floats, unit_rows
from analysis.metrics.sets import SUM_ROWS, FeatureSet, as_set


def vendi_score(features: ArrayLike | FeatureSet, order: float = 1.0) -> float:
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
    _check_order(order)
    return _effective_number(as_set(features, "features").derived(_spectrum), order)


def vendi_score_of_batches(batches: Iterable[ArrayLike], order: float = 1.0) -> float:
    """The same of a set that comes in batches and need not fit into memory: X^T X is summed over them.

    Args:
        batches: float[n_i, d] each, n_i >= 1, read once.
        order: q >= 0 as above.

    Returns:
        A value in [1, min(n, d)], n the images of all batches; higher means more diverse.

    Raises:
        ValueError: as above, or batches of different d.
    """
    _check_order(order)
    gram, num_images = np.zeros((0, 0)), 0
    for batch in batches:
        rows = unit_rows(as_floats(batch, "batches", min_images=1))
        if num_images and rows.shape[1] != len(gram):
            raise ValueError(
                f"`batches` must all have {len(gram)} features, but got one of {rows.shape[1]}. Use one extractor."
            )
        gram, num_images = (gram + rows.T @ rows if num_images else rows.T @ rows), num_images + len(rows)
    if num_images < 2:
        raise ValueError(f"`batches` must hold at least 2 images, but got {num_images}. Evaluate on more images.")
    return _effective_number(_eigenvalues(gram, num_images), order)


def _check_order(order: float) -> None:
    if np.isnan(order) or order < 0:
        raise ValueError(f"`order` must be a number >= 0 or infinity, but got {order}. Use 1 for the usual score.")


def _spectrum(images: FeatureSet) -> NDArray[np.float64]:
    """Positive eigenvalues of K/n, which sum to one."""
    if len(images) > images.dim:
        return _eigenvalues(images.derived(_gram), len(images))
    rows = unit_rows(images.features)
    return _eigenvalues(rows @ rows.T, len(images))


def _gram(images: FeatureSet) -> NDArray[np.float64]:
    """X^T X, d x d, of the rows at unit length, from those of the parts where there are any."""
    gram = np.zeros((images.dim, images.dim))
    if images.parts:
        for part in images.parts:
            gram += part.derived(_gram)
        return gram
    for block in images.blocks(SUM_ROWS):
        rows = unit_rows(block)
        gram += rows.T @ rows
    return gram


def _eigenvalues(gram: NDArray[np.float64], num_images: int) -> NDArray[np.float64]:
    """Positive eigenvalues of a Gram matrix over n; what round-off leaves of zeros is dropped."""
    eigenvalues = np.linalg.eigvalsh(gram / num_images)
    noise = eigenvalues[-1] * max(num_images, len(gram)) * np.finfo(np.float64).eps
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
