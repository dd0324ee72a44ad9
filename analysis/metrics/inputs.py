"""Checks that every metric makes of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]


def as_floats(features: ArrayLike, name: str, min_images: int = 2) -> Floats:
    """Features as they are where they are float32 or float64, in float64 otherwise.

    Args:
        features: real[n, d], one row an image.
        name: what to call the array in a message.
        min_images: smallest n that is accepted.

    Raises:
        ValueError: the array is not two-dimensional, has too few rows or no column, or holds NaN or infinity.
    """
    array = np.asarray(features)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"`{name}` must be an array [n, d], d >= 1, but got shape {array.shape}. Give a row an image.")
    if len(array) < min_images:
        raise ValueError(
            f"`{name}` must hold at least {min_images} images, but got {len(array)}. Evaluate on more images."
        )
    _require_finite(array, name)
    return array


def as_features(features: ArrayLike, name: str) -> NDArray[np.float64]:
    """The same in float64."""
    return as_floats(features, name).astype(np.float64, copy=False)


def require_same_dim(generated: int, reference: int) -> None:
    """Refuse features of different lengths.

    Raises:
        ValueError: the numbers of features differ.
    """
    if generated != reference:
        raise ValueError(
            "`generated` and `reference` must have the same number of features, "
            f"but got {generated} and {reference}. Extract both with one extractor."
        )


def unit_rows(array: Floats, name: str = "features") -> NDArray[np.float64]:
    """Rows at length one.

    Raises:
        ValueError: there is a row of zeros.
    """
    rows = array.astype(np.float64, copy=False)
    squares = np.einsum("ij,ij->i", rows, rows)
    if not ((squares > 1e-200) & (squares < 1e200)).all():  # squares of very small or large values leave the range
        rows = rows / _largest(rows, name)
        squares = np.einsum("ij,ij->i", rows, rows)
    unit: NDArray[np.float64] = rows / np.sqrt(squares)[:, None]
    return unit


def _largest(rows: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Largest absolute value of each row, none of them zero."""
    largest: NDArray[np.float64] = np.abs(rows).max(axis=1, keepdims=True)
    if not (largest > 0).all():
        raise ValueError(
            f"`{name}` must have no row of zeros, but got {np.count_nonzero(largest == 0)} of {len(rows)}. "
            "The cosine kernel is undefined there; look for blank images or a dead extractor."
        )
    return largest


def _require_finite(array: Floats, name: str) -> None:
    if np.isfinite(array.sum(dtype=np.float64)):  # NaN and infinity survive a sum, and a sum needs no array of flags
        return
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`{name}` must be finite, but got NaN or infinity in {np.count_nonzero(~finite)} of {len(array)} rows, "
            f"first in row {int(np.argmin(finite))}. Look for an extractor that overflows."
        )
