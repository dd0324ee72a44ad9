"""Reading image files as square grey pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


def read_grey(path: Path, resolution_px: int) -> NDArray[np.uint8]:
    """Read an image, turn it grey and resize it to a square by Lanczos, whatever its shape was.

    An image deeper than 8 bits is scaled by its type's range: Pillow's own conversion would cut it off at 255.

    Args:
        path: PNG, JPEG or anything else that Pillow reads.
        resolution_px: side of the result.

    Returns:
        Grey levels, uint8[resolution_px, resolution_px].

    Raises:
        ValueError: the file is no readable image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            grey = _grey(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"`image` must be readable, but got {error} from {path}. Restore the file, or remove its row."
        ) from error
    if grey.size != (resolution_px, resolution_px):
        grey = grey.resize((resolution_px, resolution_px), Image.Resampling.LANCZOS)
    return np.array(grey, np.uint8)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode not in DEEP_MODES:
        return image.convert("L")
    levels = np.asarray(image).astype(np.float64)
    brightest = 1.0 if image.mode == "F" and levels.max() <= 1 else 65535.0
    return Image.fromarray((np.clip(levels / brightest, 0, 1) * 255 + 0.5).astype(np.uint8))
