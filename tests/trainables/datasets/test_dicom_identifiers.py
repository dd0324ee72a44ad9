"""Who a DICOM film is of stands in no warning, log, message or output, however the film's tags are written."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from trainables.datasets.base import SourceOptions
from trainables.datasets.dicom import DicomError, read_dicom, without_values
from trainables.datasets.dicom_tree import DicomSource
from trainables.datasets.problems import CollectionError

NAME = "SMITH^JOHN"
VRS = {"PatientAge": "AS", "PatientSex": "CS", "SOPInstanceUID": "UI", "SpecificCharacterSet": "CS"}
READ = """
import logging, sys, warnings
from pathlib import Path
from trainables.datasets.base import SourceOptions
from trainables.datasets.dicom_tree import DicomSource
logging.basicConfig(level=logging.DEBUG)
logging.getLogger("pydicom.pixels.utils").warning("of SMITH^JOHN")
source = DicomSource.create(SourceOptions(root=Path(sys.argv[1]), conditions=("Chest X-ray",)))
print([*source.said], [(film.patient_id, film.image_id, film.age, film.sex) for film in source.samples("train")])
"""


def write_film(path: Path, number: int, *, numeric: str = "", **tags: str) -> Path:
    """A film with tags as they are given, whether DICOM allows them or not; `numeric` is said to be a number."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    film.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    film.SOPInstanceUID, film.PatientID, film.Modality = f"1.2.3.{number}", f"patient {number}", "DX"
    film.Rows = film.Columns = 16
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    film.PixelData = np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in tags.items():
            film.add_new(Tag(name), "LO" if name == numeric else VRS.get(name, "LO"), value)
        film.save_as(path, enforce_file_format=True)
    if numeric:
        tag = struct.pack("<HH", Tag(numeric).group, Tag(numeric).element)
        assert path.read_bytes().count(tag + b"LO") == 1
        path.write_bytes(path.read_bytes().replace(tag + b"LO", tag + b"FD"))
    return path


MALFORMED = {
    "PatientAge": f"045Y {NAME}",
    "PatientSex": f"F {NAME}",
    "SOPInstanceUID": f"1.2.{NAME}",
    "SpecificCharacterSet": NAME,
}


def test_pydicom_warns_of_such_films_and_quotes_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the other tests rest on."""
    film = dcmread(write_film(tmp_path / "film.dcm", 0, **MALFORMED))
    logging.getLogger("pydicom").propagate = True
    try:
        with pytest.warns(UserWarning, match="JOHN"):
            assert NAME in film.SOPInstanceUID
    finally:
        logging.getLogger("pydicom").propagate = False
    assert NAME in caplog.text


@pytest.mark.slow
def test_a_preparation_says_nothing_of_who_films_are_of(tmp_path: Path) -> None:
    for number in range(40):
        write_film(
            tmp_path / f"{number}.dcm",
            number,
            **(MALFORMED | {"SOPInstanceUID": f"1.2.{number}.{NAME}"} if number % 2 else {"PatientAge": "045Y"}),
        )
    said = subprocess.run(
        [sys.executable, "-W", "always", "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "age" in said.stdout and "45" in said.stdout
    for words in (said.stdout, said.stderr):
        assert NAME not in words and "JOHN" not in words, words
        assert "patient 1" not in words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "known", "said"),
    [
        ("SMITH JOHN", None, "not shown"),
        ("12345678", None, "not shown"),
        ("PA 12345678", "PA", None),
        ("A.P. portable", "AP", None),
        ("LLO", None, "'LLO'"),
        ("LL", "left out", "'LL'"),
        ("Left lateral 12345678", "left out", "'lateral'"),
    ],
)
def test_a_view_is_quoted_in_known_terms_alone(tmp_path: Path, view: str, known: str | None, said: str | None) -> None:
    for number in range(24):
        write_film(tmp_path / f"{number}.dcm", number, ViewPosition="PA" if number else view)
    source = DicomSource.create(SourceOptions(root=tmp_path, conditions=("Chest X-ray",)))
    words = " ".join(source.said)
    assert (said or "") in words and "SMITH" not in words and "1234" not in words
    views = Counter(film.view for split in ("train", "validation", "test") for film in source.samples(split))
    assert views == Counter(["PA"] * 23 + ([] if known == "left out" else [known]))


@pytest.mark.parametrize("tag", ["PatientID", "PatientAge"])
def test_a_tag_that_cannot_be_read_is_named_without_its_value(tmp_path: Path, tag: str) -> None:
    write_film(tmp_path / "film.dcm", 0, numeric=tag, **{tag: NAME})
    with pytest.raises(CollectionError) as raised:
        DicomSource.create(SourceOptions(root=tmp_path))
    message = str(raised.value)
    assert "`image` must be readable" in message and "film.dcm" in message and "JOHN" not in message


@pytest.mark.parametrize("tag", ["Rows", "BitsStored", "NumberOfFrames", "RescaleSlope", "WindowCenter"])
def test_a_film_that_cannot_be_read_is_refused_without_its_values(tmp_path: Path, tag: str) -> None:
    others = {"RescaleIntercept": "0", "WindowWidth": "9"}
    path = write_film(tmp_path / "film.dcm", 0, numeric=tag, **others, **{tag: NAME})
    with pytest.raises(DicomError) as raised:
        read_dicom(path.read_bytes())
    assert str(raised.value) and "JOHN" not in str(raised.value) and "SMITH" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(f"could not convert string to float: '{NAME}'"), "could not convert string to float: ..."),
        (ValueError("invalid literal: \"O'BRIEN\" of 'X'"), "invalid literal: ... of ..."),
        (ValueError(f"A (0028,0010) 'Rows' value of '{NAME}' is wrong"), "A (0028,0010) Rows value of ... is wrong"),
        (ValueError("Value 'O'BRIEN' is not valid"), "Value ... is not valid"),
        (ValueError("of\nseveral  lines"), "of several lines"),
        (ValueError(f"received {NAME.encode()!r} with length 10"), "received ... with length 10"),
        (KeyError(NAME), "KeyError"),
        (EOFError(), "EOFError"),
        (ValueError(f"of '{NAME}\nTraceback (most recent call last):\n {NAME}"), "of ..."),
        (AttributeError("'FileDataset' object has no attribute 'Rows'", name="Rows"), "no Rows"),
    ],
)
def test_what_a_library_quotes_is_left_out(error: Exception, told: str) -> None:
    assert without_values(error) == told
