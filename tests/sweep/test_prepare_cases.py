"""Collections with what users of such programs have reported: prepared rightly and said, or refused with the remedy."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pytest
from film_folders import HEADER, NUM_FILMS, film, film_rows, save_film, write_table
from PIL import Image
from prepare_runs import all_of, app, changed, prepare, prepared, refused
from typer.testing import CliRunner

from trainables.datasets.base import SPLITS, split_of_patient
from trainables.datasets.nih_cxr14 import FOLDER
from trainables.datasets.problems import Ledger

SHARED = Path(__file__).resolve().parents[2] / "../shared"
CASES, REAL = SHARED / "cases", SHARED / "data" / "nih_cxr14_1000_64"


def replace_film(root: Path, number: int, picture: Image.Image) -> None:
    path = root / "images" / f"{number}.png"
    path.unlink()
    picture.save(path)


# 1. Fields that decide the split


@pytest.mark.parametrize("blank", ["", "nan", "none", "  ", "NULL", "N/A"])
def test_films_without_a_patient_are_refused_with_count_and_first_rows(root: Path, blank: str) -> None:
    changed(root, {n: {"patient_id": blank} for n in range(1, NUM_FILMS, 2)})
    message = refused(root)
    assert f"`patient_id` must name the patient of every film, but got {blank.strip()!r} in 60 rows" in message
    assert "lines 3, 5, 7" in message and "metadata.csv" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spelling", "other"),
    [("13", "13.0"), ("13", "0013"), ("P7", "p7"), ("a 1", "a  1"), ("13", " 13 "), ("p07", "P7")],
)
def test_a_patient_in_two_spellings_is_one_and_that_is_said(root: Path, spelling: str, other: str) -> None:
    changed(root, {n: {"patient_id": (spelling, other)[n % 2]} for n in range(24, 30)})
    data, said = prepared(root)
    assert len({all_of(data, "patient_ids")[str(n)] for n in range(24, 30)}) == 1
    if spelling != other.strip():
        assert "1 patient" in said and spelling in said and other.strip() in said


def test_ids_that_a_spreadsheet_has_rounded_are_refused(root: Path) -> None:
    changed(root, {4: {"patient_id": "1.23457E+11"}})
    assert "but got '1.23457E+11' in line 6 of metadata.csv" in refused(root)


def in_splits(*splits: str) -> list[int]:
    """A film of a patient of each of the splits."""
    rows = film_rows()
    return [next(n for n, row in enumerate(rows) if split_of_patient(row[1]) == split) for split in splits]


@pytest.mark.slow
@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("how", ["bytes", "pixels", "colour"])
def test_of_one_picture_in_two_splits_the_training_copy_goes(root: Path, held_out: str, how: str) -> None:
    train, other = in_splits("train", held_out)
    picture = Image.fromarray(film(train).astype(np.uint8))
    if how == "bytes":
        (root / "images" / f"{other}.png").unlink()
        (root / "images" / f"{other}.png").hardlink_to(root / "images" / f"{train}.png")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_ambiguous_is_refused_and_bits_decide_it(root: Path) -> None:
    deep_films(root, 1800, np.uint16)
    message = refused(root)
    assert "16-bit PNG" in message and "--bits" in message and "1,800" in message
    data, said = prepared(root, "--bits", "12")
    split = data.split("train")
    drawn = film(int(split.image_ids[0])) * 1800 / 4095
    np.testing.assert_allclose(split.image(0), drawn, atol=1)
    assert "0 to 4,095" in said


@pytest.mark.slow
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


# 5. Rows


@pytest.mark.parametrize("row", ["images/4.png,3,24", "images/4.png,3,24,F,PA,Edema,more", "images/4.png"])
def test_rows_of_another_length_are_refused(root: Path, row: str) -> None:
    write_table(root, film_rows())
    lines = (root / "metadata.csv").read_text().splitlines()
    lines[5] = row
    (root / "metadata.csv").write_text("\n".join(lines))
    message = refused(root)
    assert "must have 6 values in every row" in message and "line 6 of metadata.csv" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(root: Path, encoding: str) -> None:
    write_table(root, film_rows())
    (root / "metadata.csv").write_text((root / "metadata.csv").read_text(), encoding=encoding)
    assert sum(prepared(root)[0].num_samples.values()) == NUM_FILMS


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "cp1252"])
def test_other_encodings_are_refused_with_file_and_line(root: Path, encoding: str) -> None:
    changed(root, {6: {"patient_id": "Müller"}})
    (root / "metadata.csv").write_text((root / "metadata.csv").read_text(), encoding=encoding)
    message = refused(root)
    assert "metadata.csv" in message and "UTF-8" in message and "line" in message


def test_films_of_one_name_in_two_folders_are_told_apart(root: Path) -> None:
    (root / "more").mkdir()
    save_film(root / "more" / "9.png", 999)
    data, _ = prepared(write_table(root, [*film_rows(), ["more/9.png", "5", "40", "F", "PA", "Edema"]]))
    ids = set(all_of(data, "ages"))
    assert {"images/9.png", "more/9.png", "8"} <= ids and "9" not in ids


@pytest.mark.parametrize(
    "again", ["images/3.png", "./images/3.png", "images//3.png", "images\\3.png", "{root}/images/3.png"]
)
def test_a_film_with_two_rows_is_refused(root: Path, again: str) -> None:
    row = [again.format(root=root), *film_rows()[3][1:]]
    message = refused(write_table(root, [*film_rows(), row]))
    assert "`file` must name each film once" in message and "3.png" in message and "line 122" in message


def test_a_name_that_is_too_long_for_a_file_names_none(root: Path) -> None:
    assert "must name only images that are there" in refused(
        changed(root, {3: {"file": "a" * 300 + ".png"}}), "--max-rejects", "0"
    )


def test_rows_of_nothing_are_no_rows(root: Path) -> None:
    data, _ = prepared(write_table(root, [*film_rows(), [""] * 6, [" "], []]))
    assert sum(data.num_samples.values()) == NUM_FILMS


def test_an_open_quote_does_not_swallow_rows(root: Path) -> None:
    write_table(root, film_rows())
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text.replace("images/7.png,", 'images/7.png,"', 1))
    assert "metadata.csv" in refused(root)


def test_a_column_named_twice_is_refused(root: Path) -> None:
    write_table(root, [[*row, "Edema"] for row in film_rows()], [*HEADER, "labels"])
    assert "labels" in (message := refused(root)) and "once" in message


def test_checking_lists_all_problems_in_one_pass(root: Path) -> None:
    changed(root, {3: {"patient_id": ""}, 5: {"labels": "nan"}, 9: {"file": "images/none.png"}})
    replace_film(root, 20, Image.new("L", (64, 64)))
    (root / "images" / "21.png").unlink()
    (root / "images" / "21.png").write_bytes(b"broken")
    before = sorted(root.parent.iterdir())
    result = CliRunner().invoke(app, ["nih_cxr14", "--root", str(root), "--check"])
    flat = " ".join(result.output.split())
    assert result.exit_code == 1 and "5 problems" in flat
    for place in ("line 5", "line 7", "line 11", "images/20.png", "images/21.png"):
        assert place in flat
    assert sorted(root.parent.iterdir()) == before


def test_a_collection_without_problems_passes_the_check(root: Path) -> None:
    write_table(root, film_rows())
    result = CliRunner().invoke(app, ["nih_cxr14", "--root", str(root), "--check"])
    assert result.exit_code == 0 and "no problem" in result.output


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the repository")
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("blank_patient_id", "`patient_id` must name the patient of every film"),
        ("short_row", "must have 6 values in every row"),
    ],
)
def test_the_shared_tables_that_cannot_be_read(tmp_path: Path, case: str, message: str) -> None:
    root = tmp_path / "raw"
    shutil.copytree(REAL / "images", root / "images")
    (root / "metadata.csv").write_bytes((CASES / f"{case}.csv").read_bytes())
    assert message in refused(root)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the repository")
@pytest.mark.parametrize("case", ["case_labels", "comma_labels"])
def test_the_shared_tables_of_other_spellings_and_separators(case: str) -> None:
    """They have too few films for three splits."""
    ledger = Ledger()
    films = FOLDER.reader.read(CASES / f"{case}.csv", FOLDER.reader.vocabulary({}), ledger)
    labels = pandas.read_csv(CASES / f"{case}.csv")["labels"].str.lower().str.split(r"[|,] *", regex=True).explode()
    expected = labels.replace("effusion", "pleural effusion").value_counts().to_dict()
    assert Counter(name.lower() for film in films for name in film.findings) == expected
    assert ledger.problems == [] and len(ledger.said) == 1


# 10. Captions beyond the tokenizer's length


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--to", "--check"])
def test_captions_that_are_cut_are_said(root: Path, option: str) -> None:
    long = "|".join(f"a very long name of a finding number {n} that goes on and on" for n in range(8))
    changed(root, {n: {"labels": f"{long}|a last one {n}"} for n in range(14)})
    result = prepare(root, *([option] if option == "--check" else []))
    output = " ".join(result.output.split())
    assert result.exit_code == 0 and "14 captions of 120 are longer than the 77 tokens" in output
    assert "of 14 different ones 1 text is left" in output
