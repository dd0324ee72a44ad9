"""Files that are damaged, or made to harm: a named error or a picture, never another error, too much memory, or a way out."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compressed_dicom import LOSSLESS, compressed
from film_folders import film
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stand_ins import folder, save_dicom

from trainables.datasets.base import SourceOptions
from trainables.datasets.collection import CollectionReader
from trainables.datasets.folder import FolderSource
from trainables.datasets.images import MOST_BYTES, FilmError, open_film
from trainables.datasets.labels import FilmLabels
from trainables.datasets.scan import scan_film


def save_bomb(path: Path, side: int, *, rows: int) -> None:
    """A PNG of a few kilobytes that says it has so many grey pixels, and has the first rows of them."""
    lines = zlib.compress(bytes(side + 1) * rows, 9)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", lines), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(("side", "came"), [(8200, r"8,200 x 8,200 pixels, which is more than"), (50_000, "pixels")])
def test_decompression_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, side: int, came: str) -> None:
    save_bomb(tmp_path / "a.png", side, rows=100)
    with (
        warnings.catch_warnings(),
        pytest.raises(FilmError, match=rf"`image` must be readable, but got .*{came}.*a\.png"),
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        open_film(tmp_path / "a.png")


def test_a_file_that_is_larger_than_films_are_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(FilmError, match=r"a file of 1,073,741,825 bytes, which is more than 1,073,741,824 in .*a\.png"):
        open_film(tmp_path / "a.png")


def test_a_dicom_file_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    save_dicom(tmp_path / "plain.dcm", 0)
    path = compressed(tmp_path / "plain.dcm", "JPEG2000Lossless")
    content = path.read_bytes()
    for tag in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):  # Rows and Columns
        assert content.count(tag) == 1
        place = content.index(tag) + len(tag)
        content = content[:place] + b"\xff\xff" + content[place + 2 :]
    path.write_bytes(content)
    with pytest.raises(FilmError, match="65,535 x 65,535 pixels, which is more than 67,108,864"):
        open_film(path)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A film in each container and compression that is read."""
    root = tmp_path_factory.mktemp("kinds")
    small, deep = film(1).astype(np.uint8), film(1, 65535).astype(np.uint16)
    saved = {"8.png": small, "16.png": deep, "8.jpg": small, "8.tif": small, "16.tif": deep}
    for name, levels in saved.items():
        Image.fromarray(levels).save(root / name)
    Image.fromarray(small).save(root / "packed.tif", compression="packbits")
    save_dicom(root / "film.dcm", 1)
    plain = [*(root / name for name in saved), root / "packed.tif", root / "film.dcm"]
    return [*plain, *(compressed(root / "film.dcm", syntax) for syntax in LOSSLESS)]


def truncated(content: bytearray, chance: random.Random) -> bytearray:
    return content[: chance.randrange(len(content))]


def flipped(content: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 6)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return content


def with_another_head(content: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.randint(1, 6)):
        content[chance.randrange(min(700, len(content)))] = chance.randrange(256)
    return content


def stretched(content: bytearray, chance: random.Random) -> bytearray:
    place = chance.randrange(len(content))
    return content[:place] + bytes(chance.randint(1, 40)) + content[place:]


MUTATIONS: list[Callable[[bytearray, random.Random], bytearray]] = [truncated, flipped, with_another_head, stretched]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Pillow and pydicom, on what is damaged
@settings(max_examples=1000)
@given(st.integers(0, 2**32 - 1))
def test_a_mutated_file_is_a_named_error_or_a_picture(kinds: list[Path], seed: int) -> None:
    chance = random.Random(seed)
    whole = chance.choice(kinds)
    mutated = whole.with_name(f"mutated{whole.suffix}")
    mutated.write_bytes(chance.choice(MUTATIONS)(bytearray(whole.read_bytes()), chance))
    try:
        scan = scan_film("a", mutated)
    except FilmError as error:
        assert mutated.name in str(error) and error.came and error.remedy
    else:
        assert len(scan.look) == 32 and len(scan.shape) == 2
        assert np.isfinite([scan.levels.low, scan.levels.high]).all() and scan.levels.low <= scan.levels.high


PIECES = (
    "films",
    "..",
    ".",
    "/",
    "\\",
    "0.png",
    "out",
    "within",
    "~",
    "%2e%2e",
    "\0",
    "ä",
    "secret.png",
    " ",
    "\n",
    "C:",
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> CollectionReader:
    """A collection with secrets beside it, a link to them and one that stays within."""
    root = tmp_path_factory.mktemp("outside") / "root"
    options = folder(root, 6)
    for secret in (root.parent / "secret.png", root.parent / "films" / "0.png"):
        secret.parent.mkdir(exist_ok=True)
        secret.write_bytes(b"secret")
    (root / "out").symlink_to(root.parent)
    (root / "within").symlink_to("films")
    (root / "films" / "secret.png").symlink_to(root.parent / "secret.png")
    table, labels = FolderSource._table(root)
    return CollectionReader(root, table, labels, SourceOptions(root=options.root))


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7), st.sampled_from(("", "/")))
def test_no_name_of_a_film_leads_out_of_the_folder(reader: CollectionReader, pieces: list[str], between: str) -> None:
    name = between.join(pieces)
    for file in (name, f"{reader.root}/{name}", f"{reader.root.parent}/{name}"):
        row = FilmLabels(
            file=file, table="", line=1, patient_id="1", findings=("Edema",), age=None, sex=None, view=None
        )
        film_there = reader._with_file(row, {})
        if film_there is not None:
            assert isinstance(film_there.path, Path) and film_there.path.resolve().is_relative_to(reader.root.resolve())
            assert film_there.path.read_bytes() != b"secret"


def test_names_within_the_folder_are_found(reader: CollectionReader) -> None:
    """So that the test before can fail."""
    for file in ("films/0.png", "./films/../films/0.png", "within/0.png", "films\\0.png", f"{reader.root}/films/0.png"):
        row = FilmLabels(
            file=file, table="", line=1, patient_id="1", findings=("Edema",), age=None, sex=None, view=None
        )
        assert reader._with_file(row, {}) is not None, file
