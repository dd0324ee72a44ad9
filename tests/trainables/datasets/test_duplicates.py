"""One picture in two splits: which copy goes, and which pairs are only reported."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from film_folders import film
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.base import SPLITS
from trainables.datasets.duplicates import (
    MAX_BITS_APART,
    _key_bits,
    _proposed,
    copies_to_drop,
    copies_to_keep,
    near_copies,
)
from trainables.datasets.scan import PixelHash, scan_film

REAL = Path(__file__).resolve().parents[3] / "../shared/data/nih_cxr14_1000_512"


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(SPLITS)), max_size=12))
def test_no_picture_stays_in_two_splits_and_none_is_lost(films: list[tuple[int, str]]) -> None:
    pixels, splits = [bytes([picture]) for picture, _ in films], [split for _, split in films]
    dropped = copies_to_drop(pixels, splits)
    left = [(pixels[n], splits[n]) for n in range(len(films)) if n not in dropped]
    assert {picture for picture, _ in left} == set(pixels)
    assert len(set(left)) == len({picture for picture, _ in left})
    assert all("test" not in (splits[gone],) and pixels[gone] == pixels[kept] for gone, kept in dropped.items())
    assert not any(
        splits[gone] == "validation" and "test" not in {s for p, s in films if bytes([p]) == pixels[gone]}
        for gone in dropped
    )


def saved(folder: Path, number: int, picture: Image.Image, suffix: str = "png") -> Path:
    picture.save(path := folder / f"{number}.{suffix}")
    return path


@pytest.mark.parametrize(("level", "width"), [(0.1, 1000), (1 / 3, 2048), (1e7 + 1, 31), (7, 5)])
def test_a_constant_film_is_nowhere_brighter_than_beside(tmp_path: Path, level: float, width: int) -> None:
    """Whatever its size: rounding is no brightness."""
    constant = Image.fromarray(np.full((40, width), level, np.float32))
    assert not any(scan_film("1", saved(tmp_path, 1, constant, "tiff")).look)


def test_the_dark_and_the_bright_end_are_told_by_all_columns_of_a_film(tmp_path: Path) -> None:
    """Every sixteenth column is black, the first one too: as many as are sampled of a film of that size are apart."""
    striped = np.full((512, 512), 200, np.uint8)
    striped[:, ::16] = 0
    levels = scan_film("1", saved(tmp_path, 1, Image.fromarray(striped))).levels
    assert (levels.dark, levels.bright) == (0, 200)


@pytest.mark.parametrize("how", ["as it is", "colour", "16 bits", "float"])
def test_equal_levels_are_equal_pixels_whatever_holds_them(tmp_path: Path, how: str) -> None:
    grey = film(1).astype(np.uint8)
    other = {
        "as it is": Image.fromarray(grey),
        "colour": Image.fromarray(grey).convert("RGB"),
        "16 bits": Image.fromarray(grey.astype(np.uint16)),
        "float": Image.fromarray(grey.astype(np.float32)),
    }[how]
    near = grey.copy()
    near[0, 0] ^= 1
    first, second = saved(tmp_path, 1, Image.fromarray(grey)), saved(tmp_path, 2, other, "tif")
    others = [saved(tmp_path, 3, Image.fromarray(grey.T.copy())), saved(tmp_path, 4, Image.fromarray(near))]
    rough = [scan_film(path.name, path).rough for path in (first, second, *others)]
    assert rough[0] == rough[1] == rough[3] != rough[2]
    pixels = PixelHash()
    assert pixels(first) == pixels(second) and len({pixels(path) for path in (first, *others)}) == 3


def changed(picture: Image.Image, how: str) -> Image.Image:
    if how == "jpeg":
        picture.save(content := io.BytesIO(), "JPEG", quality=60)
        return Image.open(content).convert("L")
    if how == "half":
        return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    return picture.point(lambda level: int(255 * (level / 255) ** 1.1 + 0.5))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not beside the repository")
def test_changed_copies_of_real_films_are_found_and_no_other_pair(tmp_path: Path) -> None:
    paths = sorted((REAL / "images").iterdir())[:90]
    ways = ("jpeg", "half", "gamma")
    for number, path in enumerate(paths[::3]):
        paths.append(saved(tmp_path, number, changed(Image.open(path).convert("L"), ways[number % 3])))
    looks = [scan_film(path.name, path).look for path in paths]
    splits = ["train"] * 90 + ["test"] * 30

    def small(position: int) -> NDArray[np.uint8]:
        return np.asarray(Image.open(paths[position]).convert("L").resize((128, 128)))

    pairs = near_copies(looks, splits, small)
    assert [(first, other) for first, other, _ in pairs] == [(3 * n, 90 + n) for n in range(30)]
    assert all(0.99 <= alike <= 1 for *_, alike in pairs)
    assert near_copies(looks, ["train"] * 120, small) == []


def test_pairs_of_two_splits_that_share_a_key_and_most_bits_are_compared() -> None:
    """As a look at all pairs has them, of films of few enough looks that none has many neighbours."""
    chance = np.random.default_rng(0)
    first = np.unpackbits(chance.integers(0, 256, (30, 32), np.uint8), axis=1)
    bits = first[chance.integers(30, size=120)] ^ (chance.random((120, 256)) < 0.04).astype(np.uint8)
    splits = [SPLITS[place] for place in chance.integers(3, size=120)]
    pairs = {
        (left, right)
        for left, right in itertools.combinations(range(120), 2)
        if splits[left] != splits[right]
        and (bits[left] != bits[right]).sum() <= MAX_BITS_APART
        and any((bits[left, key] == bits[right, key]).all() for key in _key_bits(256))
    }
    assert len(pairs) > 20 and _proposed([row.tobytes() for row in np.packbits(bits, axis=1)], splits) == pairs


def test_many_films_that_look_alike_cost_no_more_than_their_number() -> None:
    """Five thousand films of one look are twelve million pairs under each of sixteen keys."""
    looks, splits = [bytes(32)] * 5_000, ["train"] * 5_000
    begun = time.process_time()
    assert near_copies(looks, splits, lambda position: pytest.fail("none is in another split")) == []
    assert time.process_time() - begun < 20


def test_copies_in_one_split_are_named_beside_the_first() -> None:
    pixels, splits = [b"a", b"b", b"a", b"a", b"a"], ["train", "train", "train", "test", "train"]
    assert copies_to_keep(pixels, splits) == [(0, 2), (0, 4)]
