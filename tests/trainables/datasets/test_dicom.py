"""DICOM films go by their own tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from film_folders import film, film_rows, write_films, write_table
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.containers import DICOM
from trainables.datasets.images import FilmError, open_film
from trainables.datasets.nih_cxr14 import NihCxr14Source

GREY = film(3)


def write_dicom(path: Path, levels: NDArray[Any], *, bits: int = 12, signed: bool = False, **tags: Any) -> Path:
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    file.SOPClassUID, file.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.Rows, file.Columns = levels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, bits, bits - 1, int(signed)
    file.PixelData = levels.astype(np.int16 if signed else np.uint16).tobytes()
    for name, value in tags.items():
        if name == "PixelData" and value is None:
            del file.PixelData
        else:
            setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def read(path: Path) -> NDArray[np.uint8]:
    kind, image = open_film(path)
    assert kind == DICOM
    return np.asarray(image)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_stored_bits_are_the_range(tmp_path: Path, bits: int) -> None:
    levels = np.round(GREY / 255 * (2**bits - 1))
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a.dcm", levels, bits=bits)), GREY, atol=1)


def test_films_whose_least_value_is_white_are_turned(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", (255 - GREY) * 16, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read(path), 255 - np.minimum((255 - GREY) * 16 / 4095, 1) * 255, atol=1)


@pytest.mark.parametrize("intercept", [0, -1000])
def test_a_window_is_heeded(tmp_path: Path, intercept: int) -> None:
    levels = np.round(GREY / 255 * 4095)
    window = {"WindowCenter": 1500 + intercept, "WindowWidth": 1000, "RescaleSlope": 1, "RescaleIntercept": intercept}
    expected = np.clip((levels - 1000) / 1000, 0, 1) * 255
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a.dcm", levels, **window)), expected, atol=1)


def test_signed_levels_and_slopes(tmp_path: Path) -> None:
    levels = np.round(GREY / 255 * 4095) - 2048
    path = write_dicom(tmp_path / "a.dcm", levels, signed=True, RescaleSlope=2, RescaleIntercept=5)
    np.testing.assert_allclose(read(path), GREY, atol=1)


@pytest.mark.parametrize("tags", [{"RescaleSlope": 2}, {"RescaleIntercept": 500}])
def test_a_slope_without_an_intercept_does_nothing(tmp_path: Path, tags: dict[str, Any]) -> None:
    """As with neither of them: both are needed for a rescaled level."""
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a.dcm", GREY * 16, **tags)), GREY * 16 / 4095 * 255, atol=1)


def test_a_negative_slope_turns_a_film(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.round(GREY / 255 * 4095), RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_allclose(read(path), 255 - GREY, atol=1)


def table(entries: NDArray[Any], *, first: int = 0, bits: int = 16) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first, bits]
    item.add_new("LUTData", "OW", entries.astype(np.uint16).tobytes())
    item["LUTDescriptor"].VR = "US"
    return Sequence([item])


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_are_heeded(tmp_path: Path, name: str, bits: int) -> None:
    """Roots of the level: 4,096 entries of few bits or many, the first for level 100."""
    roots = np.sqrt(np.arange(4096) / 4095)
    tags = {name: table(np.round(roots * (2**bits - 1)), first=100, bits=bits), "VOILUTFunction": "LINEAR"}
    levels = np.round(GREY / 255 * 3995)
    path = write_dicom(tmp_path / "a.dcm", levels, **tags)
    np.testing.assert_allclose(read(path), roots[np.maximum(levels - 100, 0).astype(int)] * 255, atol=1)


PADDINGS: list[tuple[dict[str, Any], bool, tuple[int, int]]] = [
    ({"PixelPaddingValue": 0}, False, (0, 0)),
    ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 200}, False, (0, 200)),
    ({"PixelPaddingValue": 200, "PixelPaddingRangeLimit": 0}, False, (0, 200)),
    ({"PixelPaddingValue": -2000}, True, (-2000, -2000)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("tags", "signed", "padded"), PADDINGS)
@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("how", ["plain", "window", "table"])
def test_padding_is_black(
    tmp_path: Path, tags: dict[str, Any], signed: bool, padded: tuple[int, int], polarity: str, how: str
) -> None:
    """Whatever is white there, and whatever a window or a table makes of it; other levels stay as they are without it."""
    levels = np.round(GREY / 255 * 1790) + (-1000 if signed else 201)
    changes: dict[str, Any] = {
        "plain": {},
        "window": {"WindowCenter": 700, "WindowWidth": 900},
        "table": {"VOILUTSequence": table(np.linspace(65535, 20000, 4096))},
    }[how] | {"PhotometricInterpretation": polarity}
    plain = read(write_dicom(tmp_path / "plain.dcm", levels, signed=signed, **changes))
    levels[:9, :9], levels[20:30, 40:] = padded
    read_back = read(write_dicom(tmp_path / "padded.dcm", levels, signed=signed, **changes, **tags))
    expected = plain.copy()
    expected[:9, :9] = expected[20:30, 40:] = 0
    np.testing.assert_array_equal(read_back, expected)


COMPRESSED = {"syntax": JPEGLSLossless, "PixelData": encapsulate([b"compressed"])}


@pytest.mark.parametrize(
    ("tags", "message", "remedy"),
    [
        ({"NumberOfFrames": 3}, "a DICOM file of 3 frames", "Export the one that is meant as a 16-bit grey PNG"),
        (
            {"PhotometricInterpretation": "RGB"},
            "of RGB instead of MONOCHROME1 or MONOCHROME2",
            "Export it as a 16-bit grey PNG",
        ),
        ({"PhotometricInterpretation": ""}, "of no PhotometricInterpretation instead", "Export it"),
        (COMPRESSED, "Unable to decode", "Decompress it .*, export it as a 16-bit grey PNG"),
        (
            {"PixelData": None},
            "a DICOM file without pixels",
            "Give the file that holds the film's pixels, or remove its row",
        ),
        (
            {"RescaleSlope": None, "RescaleIntercept": 0},
            "an empty RescaleSlope",
            "Fill RescaleSlope and RescaleIntercept in, or remove",
        ),
        (
            {"RescaleSlope": 1, "RescaleIntercept": None},
            "an empty RescaleIntercept",
            "Fill RescaleSlope and RescaleIntercept in",
        ),
        (
            {"RescaleSlope": 0, "RescaleIntercept": 0},
            "a RescaleSlope of 0",
            "Fill RescaleSlope and RescaleIntercept in",
        ),
        (
            {"WindowCenter": 9, "WindowWidth": 0},
            "Window Width must be greater",
            "Mend its tags, export it as a 16-bit grey PNG",
        ),
        ({"PixelData": b"12"}, "bytes", "Restore the file, or remove its row"),
        ({"Rows": 0}, "Rows", "Restore the file, or remove its row"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, tags: dict[str, Any], message: str, remedy: str) -> None:
    levels = np.stack([GREY] * 3) if "NumberOfFrames" in tags else GREY
    write_dicom(tmp_path / "a.dcm", levels, **tags)
    with pytest.raises(FilmError, match=rf"`image` must be readable, but got .*{message}.*a\.dcm\. {remedy}"):
        open_film(tmp_path / "a.dcm")


def test_a_window_without_a_function_is_linear(tmp_path: Path) -> None:
    levels = np.round(GREY / 255 * 4095)
    window = {"WindowCenter": 1500, "WindowWidth": 1000}
    plain = read(write_dicom(tmp_path / "plain.dcm", levels, **window))
    np.testing.assert_array_equal(read(write_dicom(tmp_path / "a.dcm", levels, **window, VOILUTFunction="")), plain)


@pytest.mark.parametrize(
    "tags",
    [{"WindowCenter": None, "WindowWidth": None}, {"WindowCenter": 2000}, {"VOILUTSequence": Sequence([Dataset()])}],
)
def test_half_a_window_is_none(tmp_path: Path, tags: dict[str, Any]) -> None:
    levels = np.round(GREY / 255 * 4095)
    np.testing.assert_allclose(read(write_dicom(tmp_path / "a.dcm", levels, **tags)), GREY, atol=1)


def test_dicom_films_among_pictures_go_by_their_own_tags(tmp_path: Path) -> None:
    rows = film_rows()
    rows[3][0] = "images/3.dcm"
    write_films(write_table(tmp_path, rows))
    write_dicom(tmp_path / "images" / "3.dcm", np.round(film(3) / 255 * 4095))
    source = NihCxr14Source(SourceOptions(root=tmp_path))
    assert "DICOM: 1 film, each scaled by its own tags." in source.said
    (third,) = [sample for split in SPLITS for sample in source.samples(split) if sample.image_id == "3"]
    np.testing.assert_allclose(third.image, film(3), atol=1)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", GREY).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FilmError, match=r"cut\.dcm"):
        open_film(tmp_path / "cut.dcm")
