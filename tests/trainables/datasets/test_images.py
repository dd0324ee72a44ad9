"""Reading grey pictures of every depth."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.containers import EIGHT_BITS, FULL, GreyRange, Kind
from trainables.datasets.images import FilmError, open_film, require_fit
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


def save_png16(path: Path, levels: NDArray[np.uint16], colour: int) -> None:
    """A PNG of 16 bits a channel in colour (2) or grey with transparency (4), which Pillow cannot write."""
    height, width = levels.shape
    channels = np.repeat(levels[..., None], {2: 3, 4: 2}[colour], axis=2).astype(">u2")
    lines = b"".join(b"\0" + channels[line].tobytes() for line in range(height))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("colour", [2, 4])
def test_colours_of_sixteen_bits_are_refused_since_they_would_be_cut(tmp_path: Path, colour: int) -> None:
    save_png16(tmp_path / "a.png", RAMP // 16, colour)
    assert np.asarray(Image.open(tmp_path / "a.png")).max() <= 255  # Pillow keeps the upper 8 of 16 bits
    with pytest.raises(FilmError, match=r"colours of 16 bits.*a\.png\. Save the film as a 16-bit grey PNG"):
        open_film(tmp_path / "a.png")


def save_deep_colours(path: Path) -> None:
    """Colours of 16 bits in formats whose raw mode does not tell."""
    colours = np.repeat(RAMP[..., None], 3, axis=2)
    if path.suffix == ".ppm":
        path.write_bytes(b"P6 64 64 65535\n" + colours.astype(">u2").tobytes())
    elif path.suffix == ".sgi":
        Image.fromarray((RAMP // 257).astype(np.uint8)).save(path, bpc=2)
    else:
        tags = {256: 64, 257: 64, 258: (16, 16, 16), 259: 1, 262: 2, 277: 3, 284: 2}
        tags |= {273: (0, 8192, 16384), 278: 64, 279: (8192,) * 3}
        save_tiff(path, tags, np.moveaxis(colours, 2, 0).astype("<u2").tobytes())


def save_tiff(path: Path, tags: dict[int, int | tuple[int, ...]], pixels: bytes) -> None:
    """A TIFF with these tags; its offsets of strips (273) count from the first pixel."""
    entries, far, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    num_far = sum(4 * len(value) for value in tags.values() if isinstance(value, tuple))
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        values = tuple(start + num_far + offset for offset in values) if tag == 273 else values
        packed = struct.pack(f"<{len(values)}I", *values)
        entries += struct.pack("<HHI", tag, 4, len(values))
        entries += packed if len(values) == 1 else struct.pack("<I", start + len(far))
        far += packed if len(values) > 1 else b""
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    path.write_bytes(header + entries + struct.pack("<I", 0) + far + pixels)


@pytest.mark.parametrize("name", ["a.ppm", "a.sgi", "a.tif"])
def test_colours_of_sixteen_bits_are_known_in_every_format(tmp_path: Path, name: str) -> None:
    save_deep_colours(tmp_path / name)
    with pytest.raises(FilmError, match="colours of 16 bits"):
        open_film(tmp_path / name)


@pytest.mark.parametrize(("name", "width_px"), [("a.bmp", 1600), ("a.tif", 1600), ("a.bmp", 160)])
def test_eight_bits_are_read_whatever_their_strides_and_offsets_are(tmp_path: Path, name: str, width_px: int) -> None:
    """A wide BMP has 1,600 as its stride, and a compressed TIFF the place of its tags among its arguments."""
    grey = np.tile(np.arange(width_px, dtype=np.uint8), (8, 1))
    for height_px in range(1, 9) if name == "a.tif" else (8,):
        compression = {"compression": "packbits"} if name == "a.tif" else {}
        Image.fromarray(grey[:height_px]).save(tmp_path / name, **compression)
        kind, read = open_film(tmp_path / name)
        assert kind == EIGHT_BITS
        np.testing.assert_array_equal(read, grey[:height_px])


def test_a_bitmap_of_sixteen_bits_for_all_colours_is_read(tmp_path: Path) -> None:
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 70 + 128, 0, 0, 70, 56, 8, 8, 1, 16, 3, 128, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(header + struct.pack("<IIII", 0xF800, 0x7E0, 0x1F, 0) + b"\xff\xff" * 64)
    assert open_film(tmp_path / "a.bmp")[0] == EIGHT_BITS


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.roll((RAMP // 257).astype(np.uint8), n, axis=1)) for n in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(FilmError, match="3 pictures in one file"):
        open_film(tmp_path / name)


@pytest.mark.parametrize("deep", [True, False])
def test_tiffs_whose_zero_is_white_are_turned(tmp_path: Path, deep: bool) -> None:
    """Pillow writes levels as they are, and turns them while reading 8 bits only."""
    levels = RAMP if deep else (RAMP // 257).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.tif", tiffinfo={262: 0})
    kind, _ = open_film(tmp_path / "a.tif")
    read = read_ranged(tmp_path / "a.tif", 64, {kind: GreyRange(0, 65535) if deep else FULL})
    expected = 255 - RAMP // 257 if deep else np.asarray(Image.open(tmp_path / "a.tif"))
    np.testing.assert_allclose(read.astype(int), expected, atol=1)


def test_a_range_cuts_and_spreads(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    kind, _ = open_film(tmp_path / "a.png")
    read = read_ranged(tmp_path / "a.png", 64, {kind: GreyRange(10000, 30000)})
    np.testing.assert_allclose(read, np.clip((RAMP - 10000.0) / 20000, 0, 1) * 255, atol=1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_film_is_turned_as_its_file_says(tmp_path: Path, name: str) -> None:
    """As every viewer shows it, and as whoever labelled it has seen it."""
    grey, exif = (RAMP // 257).astype(np.uint8), Image.Exif()
    exif[0x112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(grey).save(tmp_path / name, exif=exif)
    np.testing.assert_allclose(read_grey(tmp_path / name, 64), np.rot90(grey, -1), atol=6)


def wide_film(path: Path) -> Path:
    """Twice as wide as high: a quarter of 50, a half of 100, a quarter of 200."""
    levels = np.repeat(np.array([50, 100, 100, 200], np.uint8), 64)
    Image.fromarray(np.tile(levels, (128, 1))).save(path)
    return path


@pytest.mark.parametrize(
    ("fit", "row", "column"),
    [
        ("stretch", [50, 100, 100, 200], [100, 100, 100, 100]),
        ("crop", [100, 100, 100, 100], [100, 100, 100, 100]),
        ("letterbox", [50, 100, 100, 200], [0, 100, 100, 0]),
    ],
)
def test_films_become_square_as_asked(tmp_path: Path, fit: str, row: list[int], column: list[int]) -> None:
    film = read_ranged(wide_film(tmp_path / "wide.png"), 64, {EIGHT_BITS: FULL}, fit)
    np.testing.assert_allclose(film[32, 8::16], row, atol=1)
    np.testing.assert_allclose(film[8::16, 32], column, atol=1)


def test_another_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="`--fit` must be one of stretch, crop, letterbox, but got 'squash'"):
        require_fit("squash")
