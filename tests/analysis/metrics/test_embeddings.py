"""CLIP score: closed form, invariances, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.metrics import clip_score


def test_angles_have_the_closed_form() -> None:
    """Cosines 1, 1/2, 0 and -1, of which the last counts as 0."""
    texts = np.tile([[2.0, 0.0]], (4, 1))
    images = np.array([[3.0, 0.0], [1.0, np.sqrt(3)], [0.0, 1.0], [-1.0, 0.0]])
    assert clip_score(images, texts) == pytest.approx(100 * (1 + 0.5) / 4)


def test_lengths_and_a_rotation_do_not_matter_but_the_pairing_does() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((20, 5)), rng.standard_normal((20, 5))
    rotation, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    score = clip_score(images, texts)
    order = rng.permutation(20)
    assert clip_score(images * rng.uniform(0.1, 9, (20, 1)) @ rotation, texts @ rotation) == pytest.approx(score)
    assert clip_score(images[order], texts[order]) == pytest.approx(score)
    assert clip_score(images, images) == pytest.approx(100) != clip_score(images[order], images)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 4)), r"one embedding .* but got \[3, 4\] and \[2, 4\]"),
        (np.ones((3, 4)), np.ones((3, 5)), "of the same model"),
        (np.zeros((3, 4)), np.ones((3, 4)), "`images` must have no row of zeros, but got 3 of 3"),
        (np.ones((3, 4)), np.zeros((3, 4)), "`texts` must have no row of zeros"),
        (np.full((3, 4), np.nan), np.ones((3, 4)), "`images` must be finite"),
        (np.ones((0, 4)), np.ones((0, 4)), "`images` must hold at least 1 image"),
    ],
)
def test_refusals(images: NDArray[np.float64], texts: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip_score(images, texts)
