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


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 3}, "a DICOM file of 3 frames"),
        ({"PhotometricInterpretation": "RGB"}, "a DICOM file of RGB instead of MONOCHROME1 or MONOCHROME2"),
        ({"syntax": JPEGLSLossless, "PixelData": encapsulate([b"compressed"])}, "JPEG-LS"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    levels = np.stack([GREY] * 3) if "NumberOfFrames" in tags else GREY
    write_dicom(tmp_path / "a.dcm", levels, **tags)
    with pytest.raises(FilmError, match=message) as raised:
        open_film(tmp_path / "a.dcm")
    assert "a.dcm" in str(raised.value) and "export it as a 16-bit grey PNG" in str(raised.value)


def test_dicom_films_among_pictures_go_by_their_own_tags(tmp_path: Path) -> None:
    rows = film_rows()
    rows[3][0] = "images/3.dcm"
    write_films(write_table(tmp_path, rows))
    write_dicom(tmp_path / "images" / "3.dcm", np.round(film(3) / 255 * 4095))
    source = NihCxr14Source(SourceOptions(root=tmp_path))
    assert "DICOM: 1 film, each scaled by its own tags." in source.said
    (third,) = [one for split in SPLITS for one in source.samples(split) if one.image_id == "3"]
    np.testing.assert_allclose(third.image, film(3), atol=1)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", GREY).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FilmError, match=r"cut\.dcm"):
        open_film(tmp_path / "cut.dcm")
