"""DICOM films as archives compress them, read to the grey level; and nothing of a patient in what is prepared."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compressed_dicom import LOSSLESS, compressed
from film_folders import film
from pydicom import dcmread
from stand_ins import dicom, save_dicom

from trainables.datasets.base import SPLITS
from trainables.datasets.dicom_tree import DicomSource
from trainables.datasets.images import open_film
from trainables.datasets.writing import write_dataset

PROGRAMS = (
    *(("dcmcrle",), ("dcmcjpeg",), ("dcmcjpls",)),
    *(("gdcmconv", kind) for kind in ("--rle", "--jpeg", "--jpegls", "--j2k")),
)
"""Of Debian's dcmtk and libgdcm-tools, each without loss."""


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_compressed_films_are_read_as_they_were(tmp_path: Path, syntax: str, bits: int, polarity: str) -> None:
    levels = film(5, 2**bits - 1).astype(np.uint16)
    tags = {
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelData": levels.tobytes(),
        "PhotometricInterpretation": polarity,
    }
    plain = tmp_path / "film.dcm"
    save_dicom(plain, 5, **tags)
    path = compressed(plain, syntax)
    assert path.stat().st_size != plain.stat().st_size
    expected = levels / (2**bits - 1) * 255
    expected = 255 - expected if polarity == "MONOCHROME1" else expected
    np.testing.assert_allclose(np.asarray(open_film(path)[1], float), expected, atol=1)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
@pytest.mark.parametrize("bits", [12, 16])
def test_films_that_other_programs_compressed_are_read_as_they_were(
    tmp_path: Path, program: tuple[str, ...], bits: int
) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    levels, to = film(5, 2**bits - 1).astype(np.uint16), tmp_path / "compressed.dcm"
    save_dicom(tmp_path / "film.dcm", 5, BitsStored=bits, HighBit=bits - 1, PixelData=levels.tobytes())
    subprocess.run([*program, str(tmp_path / "film.dcm"), str(to)], check=True, capture_output=True, timeout=60)
    assert dcmread(to, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_encapsulated
    np.testing.assert_allclose(np.asarray(open_film(to)[1], float), levels / (2**bits - 1) * 255, atol=1)


def test_signed_films_are_read_as_they_were(tmp_path: Path) -> None:
    levels = film(5, 4095).astype(np.int32) - 2048
    save_dicom(tmp_path / "film.dcm", 5, PixelRepresentation=1, PixelData=levels.astype(np.int16).tobytes())
    path = compressed(tmp_path / "film.dcm", "JPEG2000Lossless")
    np.testing.assert_allclose(np.asarray(open_film(path)[1], float), (levels + 2048) / 4095 * 255, atol=1)


@pytest.mark.slow
def test_nothing_of_a_patient_is_in_what_is_prepared(tmp_path: Path) -> None:
    source = DicomSource.create(dicom(tmp_path / "raw", 120))
    prepared = write_dataset(source, tmp_path / "prepared")
    said = json.dumps((source.said, [prepared.split(split).patient_ids for split in SPLITS]))
    written = b"".join(path.read_bytes() for path in prepared.folder.iterdir()) + said.encode()
    assert not any(secret in written for secret in (b"SECRET", b"Doe", b"Jane", b"1.2.3."))
    assert len({who for split in SPLITS for who in prepared.split(split).patient_ids}) == 60
