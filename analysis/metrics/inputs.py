"""Checks that every metric makes of its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_features(features: ArrayLike, name: str) -> NDArray[np.float64]:
    """Features in float64.

    Args:
        features: real[n, d], one row an image.
        name: what to call the array in a message.

    Raises:
        ValueError: the array is not two-dimensional, has fewer than two rows or no column, or holds NaN or infinity.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"`{name}` must be an array [n, d], d >= 1, but got shape {array.shape}. Give a row an image.")
    if len(array) < 2:
        raise ValueError(f"`{name}` must hold at least 2 images, but got {len(array)}. Evaluate on more images.")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`{name}` must be finite, but got NaN or infinity in {np.count_nonzero(~finite)} of {len(array)} rows, "
            f"first in row {int(np.argmin(finite))}. Look for an extractor that overflows."
        )
    return array
