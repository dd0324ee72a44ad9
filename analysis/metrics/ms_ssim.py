"""Multi-scale structural similarity, and the diversity of a set that it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.metrics.paired import (
    SSIM_WINDOW_PX,
    Images,
    as_image_pairs,
    as_images,
    require_window,
    similarity,
    value_range,
)

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
PAIRS_AT_A_TIME_PX = 2**21
"""Pixels of one side of the pairs that are worked on together: 16 MiB in float64."""


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Mean MS-SSIM over pairs of a set.

    Attributes:
        value: in [0, 1]; lower means more diverse, 1 that all images are one.
        num_pairs: how many pairs the mean is of.
        num_scales: scales that the images were large enough for; values of different numbers do not compare.
    """

    value: float
    num_pairs: int
    num_scales: int


def num_scales(side_px: int) -> int:
    """How many of the five scales fit: the window of 11 px must fit at the coarsest; 3 at 64 px, 5 from 176 px on."""
    scales = range(1, len(SCALE_WEIGHTS) + 1)
    return max((scale for scale in scales if side_px // 2 ** (scale - 1) >= SSIM_WINDOW_PX), default=0)


def ms_ssim(generated: Images, reference: Images, data_range: float | None = None) -> NDArray[np.float64]:
    """Multi-scale structural similarity of each pair of images, of colours the mean.

    Small images have fewer scales, see `num_scales`, whose weights are then made to sum to one: at 64 px the value is
    that of the three finest scales and does not compare with one at 512 px. Negative means of a scale count as zero.

    Args:
        generated: uint8 or float[n, H, W] or [n, H, W, C], both sides at least 11 px.
        reference: the same.
        data_range: largest less smallest possible value; 255 for uint8, to be given for floats.

    Returns:
        float64[n] in [0, 1], 1 where both images are one.

    Raises:
        ValueError: different shapes or types, NaN or infinity, no images, no range for floats, or images below 11 px.

    Source:
        Wang, Simoncelli and Bovik 2003, eq. 7 and section 3.2 (weights); scales by means of 2 x 2 pixels, of an odd
        side the last row left out.
    """
    images, others, span = as_image_pairs(generated, reference, data_range)
    require_window(images.shape[1:3])
    return _ms_ssim(images, others, span)


def ms_ssim_diversity(
    images: Images, *, num_pairs: int = 1000, data_range: float | None = None, seed: int = 0
) -> Diversity:
    """Mean MS-SSIM over random pairs of different images of a set.

    Args:
        images: uint8 or float[n, H, W] or [n, H, W, C], n >= 2, generated for one prompt or condition.
        num_pairs: how many pairs, drawn without replacement; all where there are no more.
        data_range: largest less smallest possible value; 255 for uint8, to be given for floats.
        seed: of the choice.

    Returns:
        The mean, in [0, 1]; lower means more diverse. With it the numbers of pairs and of scales.

    Raises:
        ValueError: fewer than two images, no pair, or as `ms_ssim`.

    Source:
        Odena et al. 2017, section 4.2; Chambon et al. 2022 (RoentGen) for chest radiographs.
    """
    stack = np.asarray(images)
    span = value_range(stack, data_range)
    if stack.ndim not in (3, 4) or len(stack) < 2 or num_pairs < 1:
        raise ValueError(
            f"`images` must be [n, H, W] or [n, H, W, C], n >= 2, and `num_pairs` at least 1, but got "
            f"{list(stack.shape)} and {num_pairs}. Generate more images."
        )
    require_window(stack.shape[1:3])
    first, second = _pairs(len(stack), num_pairs, seed)
    at_a_time = max(1, PAIRS_AT_A_TIME_PX // stack[0].size)
    values = np.concatenate(
        [
            _ms_ssim(as_images(stack[first[start:][:at_a_time]]), as_images(stack[second[start:][:at_a_time]]), span)
            for start in range(0, len(first), at_a_time)
        ]
    )
    return Diversity(value=float(values.mean()), num_pairs=len(values), num_scales=num_scales(min(stack.shape[1:3])))


def _pairs(num_images: int, num_pairs: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Different pairs of different images, none of them twice, in either order."""
    total = num_images * (num_images - 1) // 2
    chosen = np.random.default_rng(seed).choice(total, min(num_pairs, total), replace=False, shuffle=False)
    second = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) // 2).astype(np.int64)
    return chosen - second * (second - 1) // 2, second  # pair number s (s - 1) / 2 + f is (f, s), f < s


def _ms_ssim(images: NDArray[np.float64], others: NDArray[np.float64], data_range: float) -> NDArray[np.float64]:
    """The product over scales, of each channel, and the mean over channels."""
    by_channel = np.stack(
        [_one_channel(images[..., [c]], others[..., [c]], data_range) for c in range(images.shape[-1])]
    )
    mean: NDArray[np.float64] = by_channel.mean(axis=0)
    return mean


def _one_channel(images: NDArray[np.float64], others: NDArray[np.float64], data_range: float) -> NDArray[np.float64]:
    scales = num_scales(min(images.shape[1:3]))
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    product = np.ones(len(images))
    for number, weight in enumerate(weights):
        likeness = similarity(images, others, data_range)
        factor = likeness.ssim if number == scales - 1 else likeness.contrast_structure
        product *= np.clip(factor, 0, None) ** weight
        images, others = _halved(images), _halved(others)
    return product


def _halved(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2 x 2 pixels."""
    height, width = (side // 2 * 2 for side in stack.shape[1:3])
    pairs = stack[:, :height, :width].reshape(len(stack), height // 2, 2, width // 2, 2, -1)
    halved: NDArray[np.float64] = pairs.mean(axis=(2, 4))
    return halved
