"""How near an image comes to the one that it should be: RMSE, PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Images = NDArray[Any]

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
SSIM_CONSTANTS = (0.01, 0.03)


@dataclass(frozen=True, eq=False)
class Similarity:
    """Means over each image of what structural similarity is made of, float64[n] each.

    Attributes:
        ssim: the mean product of luminance, contrast and structure.
        contrast_structure: the mean product of contrast and structure alone.
    """

    ssim: NDArray[np.float64]
    contrast_structure: NDArray[np.float64]


def rmse(generated: Images, reference: Images, data_range: float | None = None) -> NDArray[np.float64]:
    """Root mean squared error of each image, as a share of the data range.

    Args:
        generated: uint8 or float[n, H, W] or [n, H, W, C]; the reconstructions.
        reference: the same of the originals.
        data_range: largest less smallest possible value; 255 for uint8, to be given for floats.

    Returns:
        float64[n], usually in [0, 1]; lower is better.

    Raises:
        ValueError: different shapes or types, NaN or infinity, no images, or no range for floats.
    """
    images, originals, span = as_image_pairs(generated, reference, data_range)
    return np.sqrt(_mean_square(images - originals)) / span


def psnr(generated: Images, reference: Images, data_range: float | None = None) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each image.

    Args:
        generated: uint8 or float[n, H, W] or [n, H, W, C]; the reconstructions.
        reference: the same of the originals.
        data_range: largest less smallest possible value; 255 for uint8, to be given for floats.

    Returns:
        float64[n] in dB, infinite where an image is its original; higher is better.

    Raises:
        ValueError: as `rmse`.
    """
    images, originals, span = as_image_pairs(generated, reference, data_range)
    error = _mean_square(images - originals)
    with np.errstate(divide="ignore"):
        decibels: NDArray[np.float64] = 10 * np.log10(span**2 / error)
    return decibels


def ssim(generated: Images, reference: Images, data_range: float | None = None) -> NDArray[np.float64]:
    """Structural similarity of each image, of colours the mean.

    Args:
        generated: uint8 or float[n, H, W] or [n, H, W, C], both sides at least 11 px; the reconstructions.
        reference: the same of the originals.
        data_range: largest less smallest possible value; 255 for uint8, to be given for floats.

    Returns:
        float64[n] in [-1, 1], 1 where an image is its original; higher is better.

    Raises:
        ValueError: as `rmse`, or images below 11 px.

    Source:
        Wang et al. 2004, eq. 13, with the Gaussian window of 11 px and sigma 1.5 px where it lies wholly within the
        image, K1 = 0.01, K2 = 0.03.
    """
    images, originals, span = as_image_pairs(generated, reference, data_range)
    require_window(images.shape[1:3])
    return similarity(images, originals, span).ssim


def similarity(first: NDArray[np.float64], second: NDArray[np.float64], data_range: float) -> Similarity:
    """SSIM of float64[n, H, W, C] images and its part without luminance.

    Args:
        first: float64[n, H, W, C], both sides at least 11 px.
        second: the same of the others.
        data_range: largest less smallest possible value.
    """
    luminance_constant, contrast_constant = ((constant * data_range) ** 2 for constant in SSIM_CONSTANTS)
    mean_1, mean_2 = _blurred(first), _blurred(second)
    variance_1, variance_2 = _blurred(first * first) - mean_1**2, _blurred(second * second) - mean_2**2
    covariance = _blurred(first * second) - mean_1 * mean_2
    structure = (2 * covariance + contrast_constant) / (variance_1 + variance_2 + contrast_constant)
    luminance = (2 * mean_1 * mean_2 + luminance_constant) / (mean_1**2 + mean_2**2 + luminance_constant)
    return Similarity((luminance * structure).mean(axis=(1, 2, 3)), structure.mean(axis=(1, 2, 3)))


def as_image_pairs(
    first: Images, second: Images, data_range: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Both stacks as float64[n, H, W, C], and their range.

    Args:
        first: real[n, H, W] or [n, H, W, C].
        second: of the same shape and type.
        data_range: largest less smallest possible value; None: 255, of uint8 only.

    Raises:
        ValueError: as `rmse`.
    """
    images, others = np.asarray(first), np.asarray(second)
    if images.shape != others.shape or images.dtype != others.dtype:
        raise ValueError(
            "`generated` and `reference` must have the same shape and type, but got "
            f"{images.dtype}{list(images.shape)} and {others.dtype}{list(others.shape)}. Pair every image with its own."
        )
    return as_images(images), as_images(others), value_range(images, data_range)


def as_images(images: Images) -> NDArray[np.float64]:
    """A stack as float64[n, H, W, C].

    Raises:
        ValueError: another shape, no image, or NaN or infinity.
    """
    if images.ndim not in (3, 4) or images.size == 0:
        raise ValueError(
            f"`images` must be [n, H, W] or [n, H, W, C], n >= 1, but got {list(images.shape)}. Stack the images."
        )
    stack = images.reshape(*images.shape[:3], -1).astype(np.float64)
    if not np.isfinite(stack).all():
        raise ValueError("`images` must be finite, but got NaN or infinity. Look for a decoder that overflows.")
    return stack


def value_range(images: Images, data_range: float | None) -> float:
    """The range given, or 255 for uint8.

    Raises:
        ValueError: none was given for another type, or it is not positive.
    """
    if data_range is None and images.dtype == np.uint8:
        return 255.0
    if data_range is None or not data_range > 0:
        raise ValueError(
            f"`data_range` must be positive and given for images of {images.dtype}, but got {data_range}. "
            "Give 1 for values in [0, 1], 2 for [-1, 1]."
        )
    return float(data_range)


def require_window(shape: tuple[int, ...]) -> None:
    """Refuse images that the window does not fit into.

    Raises:
        ValueError: a side is below 11 px.
    """
    if min(shape) < SSIM_WINDOW_PX:
        raise ValueError(
            f"`images` must be at least {SSIM_WINDOW_PX} px on each side for SSIM, but got {shape[0]} x {shape[1]}. "
            "Enlarge them, or use RMSE."
        )


def _blurred(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means under the window, at all places where it fits."""
    margin = SSIM_WINDOW_PX // 2
    offsets = np.arange(-margin, margin + 1)
    window = np.exp(-(offsets**2) / (2 * SSIM_SIGMA_PX**2))
    window /= window.sum()
    down = scipy.ndimage.correlate1d(stack, window, axis=1)[:, margin:-margin]
    across: NDArray[np.float64] = scipy.ndimage.correlate1d(down, window, axis=2)[:, :, margin:-margin]
    return across


def _mean_square(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.square(differences).mean(axis=(1, 2, 3))
    return mean
