"""DICOM films as grey pictures, by what their own tags say of levels, windows and polarity."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

MAGIC = b"DICM"
MAGIC_AT = 128
POLARITIES = ("MONOCHROME1", "MONOCHROME2")
READ_ERRORS = (
    *(InvalidDicomError, BytesLengthException, ArithmeticError, AttributeError, LookupError, RuntimeError),
    *(TypeError, ValueError, EOFError, struct.error),
)
"""What pydicom raises on files that are damaged, incomplete or compressed in a way that it cannot undo."""


class DicomError(ValueError):
    """A DICOM file is no grey picture that can be read."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, whatever it is called."""
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def read_dicom(path: Path) -> Image.Image:
    """A film in grey, air dark.

    Levels are rescaled, windowed by the first window or table of the file or else spread from the least to the greatest
    value that its bits can store, and inverted where the least value is white.

    Raises:
        DicomError: it has no pixels, several frames, colours, or a compression that cannot be read.
    """
    try:
        film = dcmread(path)
        _require_one_grey_picture(film)
        grey = _grey(film, film.pixel_array)
        return Image.fromarray(255 - grey if film.PhotometricInterpretation == "MONOCHROME1" else grey)
    except READ_ERRORS as error:
        raise DicomError(" ".join(str(error).split())) from error


def _require_one_grey_picture(film: Dataset) -> None:
    if "PixelData" not in film:
        raise DicomError("a DICOM file without pixels")
    if int(film.get("NumberOfFrames", None) or 1) != 1:
        raise DicomError(f"a DICOM file of {film.NumberOfFrames} frames")
    if film.PhotometricInterpretation not in POLARITIES:
        raise DicomError(f"a DICOM file of {film.PhotometricInterpretation} instead of {' or '.join(POLARITIES)}")


def _grey(film: Dataset, stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    low, high = _ends(film)
    levels = apply_voi_lut(apply_modality_lut(stored, film), film, index=0).astype(np.float64)
    return (np.clip((levels - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def _ends(film: Dataset) -> tuple[float, float]:
    """The least and the greatest value that can come out."""
    if film.get("VOILUTSequence"):
        return 0.0, 2.0 ** film.VOILUTSequence[0].LUTDescriptor[2] - 1
    if film.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** film.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    signed = film.PixelRepresentation == 1
    low, high = (
        (-(2 ** (film.BitsStored - 1)), 2 ** (film.BitsStored - 1) - 1) if signed else (0, 2**film.BitsStored - 1)
    )
    slope, intercept = float(film.get("RescaleSlope", 1)), float(film.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept
