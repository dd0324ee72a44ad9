"""Patients, copies and pixels with which users of such programs had trouble: prepared rightly and said, or refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from film_folders import NUM_FILMS, film, film_rows, write_table
from PIL import Image
from prepare_command import CASES, all_of, changed, prepared, refused, replace_film

from trainables.datasets.base import SPLITS, split_of_patient

# 1. Fields that decide the split


@pytest.mark.parametrize("blank", ["", "nan", "none", "  ", "NULL", "N/A"])
def test_films_without_a_patient_are_refused_with_count_and_first_rows(root: Path, blank: str) -> None:
    changed(root, {n: {"patient_id": blank} for n in range(1, NUM_FILMS, 2)})
    message = refused(root)
    assert f"`patient_id` must name the patient of every film, but got {blank.strip()!r} in 60 rows" in message
    assert "lines 3, 5, 7" in message and "metadata.csv" in message


@pytest.mark.parametrize(
    ("one", "other"), [("13", "13.0"), ("13", "0013"), ("P7", "p7"), ("a 1", "a  1"), ("13", " 13 "), ("p07", "P7")]
)
def test_a_patient_in_two_spellings_is_one_and_that_is_said(root: Path, one: str, other: str) -> None:
    changed(root, {n: {"patient_id": (one, other)[n % 2]} for n in range(24, 30)})
    data, said = prepared(root)
    assert len({all_of(data, "patient_ids")[str(n)] for n in range(24, 30)}) == 1
    if one != other.strip():
        assert "1 patient" in said and one in said and other.strip() in said


def test_ids_that_a_spreadsheet_has_rounded_are_refused(root: Path) -> None:
    changed(root, {4: {"patient_id": "1.23457E+11"}})
    assert "but got '1.23457E+11' in line 6 of metadata.csv" in refused(root)


def in_splits(*splits: str) -> list[int]:
    """A film of a patient of each of the splits."""
    rows = film_rows()
    return [next(n for n, row in enumerate(rows) if split_of_patient(row[1]) == split) for split in splits]


@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("how", ["bytes", "pixels", "colour"])
def test_of_one_picture_in_two_splits_the_training_copy_goes(root: Path, held_out: str, how: str) -> None:
    train, other = in_splits("train", held_out)
    picture = Image.fromarray(film(train).astype(np.uint8))
    if how == "bytes":
        (root / "images" / f"{other}.png").unlink()
        (root / "images" / f"{other}.png").symlink_to((root / "images" / f"{train}.png").readlink())
    else:
        replace_film(root, other, picture.convert("RGB" if how == "colour" else "L").copy())
    data, said = prepared(write_table(root, film_rows()))
    assert sum(data.num_samples.values()) == NUM_FILMS - 1
    assert str(train) not in all_of(data, "ages") and str(other) in data.split(held_out).image_ids
    assert f"images/{train}.png" in said and f"images/{other}.png" in said and "1 film" in said


def test_near_copies_are_reported_and_kept(root: Path) -> None:
    train, other = in_splits("train", "test")
    picture = Image.fromarray(film(train).astype(np.uint8))
    picture.resize((96, 96), Image.Resampling.LANCZOS).save(root.parent / "larger.jpg", quality=80)
    replace_film(root, other, Image.open(root.parent / "larger.jpg"))
    data, said = prepared(write_table(root, film_rows()))
    assert sum(data.num_samples.values()) == NUM_FILMS
    assert f"images/{train}.png" in said and f"images/{other}.png" in said and "0.99" in said


# 2. Pixels that do not fill their container


def deep_films(root: Path, deepest: int, dtype: type[np.generic], suffix: str = "png") -> Path:
    rows = film_rows()
    (root / "deep").mkdir()
    for number, row in enumerate(rows):
        row[0] = f"deep/{number}.{suffix}"
        Image.fromarray(film(number, deepest).astype(dtype)).save(root / row[0])
    return write_table(root, rows)


@pytest.mark.parametrize(
    ("deepest", "dtype", "suffix"),
    [
        (4095, np.uint16, "png"),
        (1023, np.uint16, "png"),
        (255, np.uint16, "tif"),
        (255, np.int32, "tif"),
        (65535, np.int32, "tif"),
        (255, np.float32, "tif"),
        (1, np.float32, "tif"),
        (4095, np.float32, "tif"),
    ],
)
def test_grey_keeps_its_span_in_every_container(root: Path, deepest: int, dtype: type[np.generic], suffix: str) -> None:
    data, said = prepared(deep_films(root, deepest, dtype, suffix))
    split = data.split("train")
    read, drawn = split.image(0), film(int(split.image_ids[0]))
    np.testing.assert_allclose(read, drawn, atol=1)
    assert f"0 to {deepest:,}" in said


def test_what_is_ambiguous_is_refused_and_bits_decide_it(root: Path) -> None:
    deep_films(root, 1800, np.uint16)
    message = refused(root)
    assert "16-bit PNG" in message and "--bits" in message and "1,800" in message
    data, said = prepared(root, "--bits", "12")
    split = data.split("train")
    drawn = film(int(split.image_ids[0])) * 1800 / 4095
    np.testing.assert_allclose(split.image(0), drawn, atol=1)
    assert "0 to 4,095" in said


def test_negatives_need_a_range(root: Path) -> None:
    rows = film_rows()
    (root / "deep").mkdir()
    for number, row in enumerate(rows):
        row[0] = f"deep/{number}.tif"
        Image.fromarray((film(number, 2000) - 1000).astype(np.int32)).save(root / row[0])
    write_table(root, rows)
    assert "-1,000" in (message := refused(root)) and "--range LOW HIGH" in message
    data, _ = prepared(root, "--range", "-1000", "1000")
    split = data.split("train")
    np.testing.assert_allclose(split.image(0), film(int(split.image_ids[0])), atol=1)


def test_films_of_12_bits_beside_one_of_16_are_refused(root: Path) -> None:
    deep_films(root, 4095, np.uint16)
    Image.fromarray(film(7, 65535).astype(np.uint16)).save(root / "deep" / "7.png")
    assert "--bits" in (message := refused(root)) and "deep/0.png" in message
    assert "deep/7.png" in refused(root, "--bits", "12")


@pytest.mark.parametrize("levels", [0, 255, 17])
def test_constant_films_are_refused(root: Path, levels: int) -> None:
    replace_film(root, 5, Image.new("L", (64, 64), levels))
    message = refused(write_table(root, film_rows()))
    assert "images/5.png" in message and "almost" in message


def test_almost_constant_films_are_refused(root: Path) -> None:
    almost = np.full((64, 64), 30, np.uint8)
    almost[:3, :6] = 255  # a marker in a corner
    replace_film(root, 5, Image.fromarray(almost))
    assert "images/5.png" in refused(write_table(root, film_rows()))


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the repository")
@pytest.mark.parametrize("case", ["12bit_in_16bit.png", "float_0_255.tif"])
def test_the_shared_pictures(root: Path, case: str) -> None:
    (root / "images" / "5.png").unlink()
    (root / "images" / "5.png").write_bytes((CASES / case).read_bytes())
    data, _ = prepared(write_table(root, film_rows()))
    split = next(data.split(name) for name in SPLITS if "5" in data.split(name).image_ids)
    image = split.image(split.image_ids.index("5"))
    assert image.mean() > 60 and len(np.unique(image)) > 150


# 3. Labels
