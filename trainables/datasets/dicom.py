"""DICOM films as grey pictures, by what their own tags say of levels, windows and polarity."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_dict
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import ExplicitVRBigEndian

from trainables.datasets.ct_windows import CtWindow
from trainables.datasets.decoding import READ_ERRORS, Stored, decoded
from trainables.datasets.film_files import FilmFile

MAGIC = b"DICM"
MAGIC_AT = 128
MAX_PIXELS = 8192**2
"""Four times the largest detectors of chest radiographs have: what claims more is no film, and may not fit the memory."""
RESCALE_TAGS = ("RescaleSlope", "RescaleIntercept")
POLARITIES = ("MONOCHROME1", "MONOCHROME2")
Spread = tuple[NDArray[np.float64], float, float]
"""Levels, and those that are black and white unless the polarity says the contrary."""
RESTORE = "Restore the file, or remove its row."
DECOMPRESS = "Decompress it (for example gdcmconv --raw), export it as a 16-bit grey PNG, or remove its row."
EXPORT = "Export it as a 16-bit grey PNG, or remove its row."
EXPORT_ONE = "Export the one that is meant as a 16-bit grey PNG, or remove its row."
WITH_PIXELS = "Give the file that holds the film's pixels, or remove its row."
RESCALE = "Fill RescaleSlope and RescaleIntercept in, or remove them."
NO_CT = "Leave --window out, or remove its row."
TAGS = "Mend its tags, export it as a 16-bit grey PNG, or remove its row."
QUOTED = re.compile(r"""b?(['"])(?:.*\1|.*)""")
"""From the first quotation mark to the last of its kind, or else to the end: what is quoted may hold such marks."""
KEYWORD = re.compile(r"'([A-Z]\w+)'")
TRACEBACK = "Traceback (most recent call last)"
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").propagate = False  # with it, what the modules of pydicom log by names of their own
# Its warnings quote tags, in which may stand who a film is of, and warnings go to logs. This is for the whole process, since
# films are read by several threads, of which one would undo what another has set.


class DicomError(ValueError):
    """A DICOM file is no grey picture that can be read.

    Args:
        came: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, came: str, remedy: str) -> None:
        super().__init__(came)
        self.remedy = remedy


def is_dicom(path: FilmFile) -> bool:
    """Whether a file begins as DICOM files do, whatever it is called."""
    with path.open("rb") as file:
        return begins_as_dicom(file.read(MAGIC_AT + len(MAGIC)))


def begins_as_dicom(content: bytes) -> bool:
    """Whether bytes are the beginning of a DICOM file."""
    return content[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def read_dicom(content: bytes, window: CtWindow | None = None) -> Image.Image:
    """A film in grey, air dark.

    Levels are rescaled where slope and intercept are there, windowed by the first table or window of the file or else spread
    from the least to the greatest value that its bits can store, and inverted where the least value is white. Padding is black.

    Args:
        content: of the file.
        window: in place of the file's own tables and windows; for CT alone.

    Raises:
        DicomError: it has no pixels, several frames, colours, tags that contradict themselves, a compression that cannot be
            read, or a window of Hounsfield units is asked of what has none.

    Source: DICOM PS3.3, C.7.6.3.1.2 (polarity), C.7.5.1.1.2 (padding), C.11.1 and C.11.2 (levels).
    """
    with _explained(RESTORE):
        film = dcmread(io.BytesIO(content))
        _require_one_grey_picture(film)
        if window is not None:
            _see_through(film, window)
        is_compressed = film.file_meta.TransferSyntaxUID.is_encapsulated
    with _explained(DECOMPRESS if is_compressed else RESTORE):
        stored = decoded(content) if is_compressed else film.pixel_array
    with _explained(TAGS):
        grey = _grey(film, stored)
        grey = 255 - grey if film.PhotometricInterpretation == "MONOCHROME1" else grey
        return Image.fromarray(np.where(_padding(film, stored), np.uint8(0), grey))


@contextmanager
def _explained(remedy: str) -> Iterator[None]:
    try:
        yield
    except DicomError:
        raise
    except READ_ERRORS as error:
        raise DicomError(without_values(error), remedy) from error


def without_values(error: Exception) -> str:
    """What a library says is wrong with a file, without what it quotes of it: that may be who the film is of."""
    if isinstance(error, AttributeError) and error.name:
        return f"no {error.name}"
    said = " ".join(str(error).partition(TRACEBACK)[0].split())  # pydicom appends it
    said = QUOTED.sub("...", KEYWORD.sub(lambda match: match[1 if keyword_dict.get(match[1]) else 0], said))
    return type(error).__name__ if said in ("", "...") else said


def too_large(width: int, height: int) -> str:
    """What is wrong with a picture of so many pixels."""
    return f"{width:,} x {height:,} pixels, which is more than {MAX_PIXELS:,}"


def _require_one_grey_picture(film: Dataset) -> None:
    if "PixelData" not in film:
        raise DicomError("a DICOM file without pixels", WITH_PIXELS)
    if int(film.get("NumberOfFrames", None) or 1) != 1:
        raise DicomError(f"a DICOM file of {film.NumberOfFrames} frames", EXPORT_ONE)
    if (height := int(film.get("Rows") or 0)) * (width := int(film.get("Columns") or 0)) > MAX_PIXELS:
        raise DicomError(too_large(width, height), EXPORT)
    if film.PhotometricInterpretation not in POLARITIES:
        colours = film.PhotometricInterpretation or "no PhotometricInterpretation"
        raise DicomError(f"a DICOM file of {colours} instead of {' or '.join(POLARITIES)}", EXPORT)


def _see_through(film: Dataset, window: CtWindow) -> None:
    """Put a window in the place of the file's own, where its levels are Hounsfield units.

    Source: DICOM PS3.3, C.8.2.1 (a CT image's rescaled levels are Hounsfield units unless its RescaleType says otherwise).
    """
    if film.get("Modality") != "CT":
        modality = film.get("Modality") or "no Modality"
        raise DicomError(f"a DICOM file of {modality}, where the window {window.name} is of CT", NO_CT)
    unit = film.get("RescaleType") or "HU"
    if unit != "HU" or film.get("ModalityLUTSequence") or not all(name in film for name in RESCALE_TAGS):
        came = f"a RescaleType of {unit}" if unit != "HU" else "no RescaleSlope and RescaleIntercept"
        raise DicomError(f"a CT with {came}, so that its levels are no Hounsfield units", NO_CT)
    film.pop("VOILUTSequence", None)
    film.WindowCenter, film.WindowWidth, film.VOILUTFunction = window.center_hu, window.width_hu, "LINEAR"


def _padding(film: Dataset, stored: Stored) -> NDArray[np.bool_]:
    """The pixels that are no part of the film, by their stored levels."""
    first = film.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = film.get("PixelPaddingRangeLimit")
    ends = np.array([first, first if last is None else last]).astype(stored.dtype)  # signed where the levels are
    padding: NDArray[np.bool_] = (stored >= ends.min()) & (stored <= ends.max())
    return padding


def _grey(film: Dataset, stored: Stored) -> NDArray[np.uint8]:
    levels, low, high = _windowed(film, *_rescaled(film, stored))
    return (np.clip((levels - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def _rescaled(film: Dataset, stored: Stored) -> Spread:
    """Levels as the modality means them."""
    if film.get("ModalityLUTSequence"):
        return _looked_up(film, film.ModalityLUTSequence[0], stored)
    signed = film.PixelRepresentation == 1
    least = -(2 ** (film.BitsStored - 1)) if signed else 0
    greatest = least + 2**film.BitsStored - 1
    slope, intercept = _rescale(film)
    return stored.astype(np.float64) * slope + intercept, least * slope + intercept, greatest * slope + intercept


def _rescale(film: Dataset) -> tuple[float, float]:
    """Slope and intercept, which mean something only together."""
    for name in RESCALE_TAGS:
        if name in film and film[name].value is None:
            raise DicomError(f"an empty {name}", RESCALE)
    if not all(name in film for name in RESCALE_TAGS):
        return 1.0, 0.0
    if film.RescaleSlope == 0:
        raise DicomError("a RescaleSlope of 0", RESCALE)
    return float(film.RescaleSlope), float(film.RescaleIntercept)


def _windowed(film: Dataset, levels: NDArray[np.float64], low: float, high: float) -> Spread:
    """Levels as they are to be shown; a table goes before a window, and half a window is none."""
    table = film.VOILUTSequence[0] if film.get("VOILUTSequence") else Dataset()
    if "LUTDescriptor" in table and "LUTData" in table:
        return _looked_up(film, table, levels)
    if film.get("WindowCenter") is None or film.get("WindowWidth") is None:
        return levels, min(low, high), max(low, high)
    if not film.get("VOILUTFunction"):
        film.VOILUTFunction = "LINEAR"  # an empty one is none
    return apply_windowing(levels, film), low, high  # which it makes of the darkest and the brightest


def _looked_up(film: Dataset, table: Dataset, levels: NDArray[Any]) -> Spread:
    """Levels replaced by the entries of a table.

    Not by pydicom, which takes levels modulo 256 for entries of 8 bits (3.0), and none of 12 bits for the modality's.
    """
    length, first, bits = table.LUTDescriptor
    length, entries = length or 2**16, table.LUTData
    if isinstance(entries, bytes):
        order = ">" if film.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
        entries = np.frombuffer(entries, f"{order}u2" if len(entries) >= 2 * length else np.uint8)
    positions = np.clip(np.rint(levels) - first, 0, length - 1).astype(np.int64)
    return np.asarray(entries)[positions].astype(np.float64), 0.0, 2.0**bits - 1
