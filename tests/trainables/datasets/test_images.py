"""Reading grey pictures of every depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.containers import EIGHT_BITS, FULL, GreyRange, Kind
from trainables.datasets.images import FilmError, open_film
from trainables.datasets.images import read_grey as read_ranged

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
RANGES = {EIGHT_BITS: FULL, Kind(name="16-bit PNG", bits=16): GreyRange(0, 65535)}


def read_grey(path: Path, resolution_px: int) -> NDArray[np.uint8]:
    return read_ranged(path, resolution_px, RANGES)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(RAMP).save(path)
    read = read_grey(path, 64)
    np.testing.assert_allclose(read, RAMP / 257, atol=1)
    # What Pillow's own conversion gives, and why this function exists.
    assert (np.asarray(Image.open(path).convert("RGB")) == 255).mean() > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_eight_bits_of_every_mode_turn_grey(tmp_path: Path, mode: str) -> None:
    grey = (RAMP // 257).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_grey(tmp_path / "a.png", 64), grey, atol=1)


def test_any_shape_becomes_a_square_by_plain_resize(tmp_path: Path) -> None:
    Image.fromarray((RAMP // 257).astype(np.uint8)).resize((200, 90)).save(tmp_path / "wide.png")
    read = read_grey(tmp_path / "wide.png", 64)
    assert read.shape == (64, 64)
    np.testing.assert_allclose(read.mean(axis=0), RAMP[0] / 257, atol=4)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"`image` must be readable.*broken\.png"):
        read_grey(tmp_path / "broken.png", 64)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:120])
    with pytest.raises(ValueError, match=r"`image` must be readable.*cut\.png"):
        read_grey(tmp_path / "cut.png", 64)
