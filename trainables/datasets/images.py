"""Reading image files as square grey pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.datasets.containers import DICOM, EIGHT_BITS, FULL, GreyRange, Kind
from trainables.datasets.ct_windows import CtWindow
from trainables.datasets.decoding import NoDecoderError
from trainables.datasets.dicom import MAX_PIXELS, NO_CT, RESTORE, DicomError, begins_as_dicom, read_dicom, too_large
from trainables.datasets.film_files import FilmFile

READ_ERRORS = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on files that are damaged, or so large that they must be."""
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
WHITE_IS_ZERO = 0
PHOTOMETRIC = 262
"""The tag of TIFF that says which end of the levels is white; Pillow heeds it for 8 bits only."""
BITS_PER_SAMPLE = 258
"""The tag of TIFF with the bits of each channel."""
DEEP_CHANNELS = re.compile(";16[BLN]")
"""In the raw mode of files whose channels have 16 bits; `BGR;16` has 16 bits for all three."""
WHITE = 255
MOST_BYTES: Final = 2**30
"""Of a file: films of `MAX_PIXELS` take less, and a larger one is not read into memory."""

READABLE = "`image` must be readable"


class FilmError(ValueError):
    """A file is no readable picture.

    Args:
        came: what is wrong with it.
        path: where it is.
        remedy: what to do about it.
    """

    def __init__(self, came: str, path: FilmFile, remedy: str = RESTORE) -> None:
        super().__init__(f"{READABLE}, but got {came} in {path}. {remedy}")
        self.came, self.path, self.remedy = came, path, remedy

    def __reduce__(self) -> tuple[type[FilmError], tuple[str, FilmFile, str]]:
        """Pickle what it was made of: an exception by itself pickles its message alone."""
        return FilmError, (self.came, self.path, self.remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmReading:
    """How films become square grey pictures; it can be pickled, for processes elsewhere that read them.

    Attributes:
        resolution_px: side of the pictures.
        ranges: black and white of each kind of container.
        fit: one of `FITS`.
        window: through which CT is seen.
    """

    resolution_px: int
    ranges: Mapping[Kind, GreyRange]
    fit: str = "stretch"
    window: CtWindow | None = None

    def __call__(self, path: FilmFile) -> NDArray[np.uint8]:
        """As `read_grey`."""
        return self.picture(*open_film(path, self.window))

    def picture(self, kind: Kind, image: Image.Image) -> NDArray[np.uint8]:
        """The picture of an opened film."""
        return np.asarray(self.prepared(kind, image))

    def prepared(self, kind: Kind, image: Image.Image) -> Image.Image:
        """An opened film as it is to be prepared; itself, where it is so already."""
        grey = to_grey(image, self.ranges[kind], inverted=is_white_zero(image))
        if grey.size != (self.resolution_px, self.resolution_px):
            size = (self.resolution_px, self.resolution_px)
            grey = FITS[self.fit](grey, size, method=Image.Resampling.LANCZOS)
        return grey


def read_grey(
    path: FilmFile,
    resolution_px: int,
    ranges: Mapping[Kind, GreyRange],
    fit: str = "stretch",
    *,
    window: CtWindow | None = None,
) -> NDArray[np.uint8]:
    """Read an image, turn it grey and resize it to a square by Lanczos, whatever its shape was.

    Args:
        path: PNG, JPEG, TIFF, DICOM or anything else that Pillow reads.
        resolution_px: side of the result.
        ranges: black and white of each kind of container; see `grey_ranges`.
        fit: one of `FITS`.
        window: through which CT is seen; pictures and DICOM films of other kinds are refused then.

    Returns:
        Grey levels, uint8[resolution_px, resolution_px], air dark.

    Raises:
        FilmError: the file is no readable image of one grey picture.
    """
    return FilmReading(resolution_px=resolution_px, ranges=ranges, fit=fit, window=window)(path)


def require_fit(fit: str) -> str:
    """The name, if it is one of `FITS`.

    Raises:
        ValueError: it is not.
    """
    if fit not in FITS:
        raise ValueError(f"`--fit` must be one of {', '.join(FITS)}, but got {fit!r}. Choose one.")
    return fit


def _stretched(image: Image.Image, size: tuple[int, int], method: int) -> Image.Image:
    return image.resize(size, method)


FITS: Final[Mapping[str, Callable[..., Image.Image]]] = {
    "stretch": _stretched,
    "crop": ImageOps.fit,
    "letterbox": ImageOps.pad,
}
"""How films become square: each side by itself; the middle of the longer side; or the whole film between black bars."""


def open_film(path: FilmFile, window: CtWindow | None = None) -> tuple[Kind, Image.Image]:
    """A film as it is stored: 8 bits in grey, deeper levels as they are; and the kind of its container.

    Raises:
        FilmError: the file is no readable image of one grey picture, or no CT where a window is given.
        NoDecoderError: no compressed film can be read.
    """
    return open_content(film_content(path), path, window)


def film_content(path: FilmFile) -> bytes:
    """The bytes of a film's file.

    Raises:
        FilmError: they cannot be read, or are more than a film has.
    """
    try:
        size = path.stat().st_size if isinstance(path, Path) else 0
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except READ_ERRORS as error:
        raise FilmError(str(error) or type(error).__name__, path) from error
    if size > MOST_BYTES:
        raise FilmError(f"a file of {size:,} bytes, which is more than {MOST_BYTES:,}", path, "Remove its row.")
    return content


def open_content(content: bytes, path: FilmFile, window: CtWindow | None = None) -> tuple[Kind, Image.Image]:
    """As `open_film`, by the bytes of the film's file.

    Args:
        content: of the file.
        path: where it is, for messages.
        window: through which CT is seen.

    Raises:
        FilmError, NoDecoderError: as `open_film`.
    """
    try:
        if begins_as_dicom(content):
            return (window.kind if window else DICOM), read_dicom(content, window)
        if window:
            raise FilmError(f"a picture that is no DICOM, where the window {window.name} is of CT", path, NO_CT)
        return _open_picture(content, path)
    except DicomError as error:
        raise FilmError(str(error), path, error.remedy) from error
    except UnidentifiedImageError as error:
        raise FilmError("a file that is no picture", path) from error
    except (FilmError, NoDecoderError):
        raise
    except READ_ERRORS as error:
        raise FilmError(str(error) or type(error).__name__, path) from error


def _open_picture(content: bytes, path: FilmFile) -> tuple[Kind, Image.Image]:
    with Image.open(io.BytesIO(content)) as image:
        _require_one_picture(image, path)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # a copy would lack the tags of TIFF
        return _kind(image), image if image.mode in (*DEEP_MODES, "L") else image.convert("L")


def to_grey(image: Image.Image, grey: GreyRange, *, inverted: bool = False) -> Image.Image:
    """An opened film in 8 bits, black and white where the range has them.

    Args:
        image: of any grey mode.
        grey: levels that are black and white.
        inverted: whether the file holds black as white.
    """
    if grey != FULL or image.mode != "L":
        levels = (np.asarray(image).astype(np.float64) - grey.low) / (grey.high - grey.low)
        image = Image.fromarray((np.clip(levels, 0, 1) * 255 + 0.5).astype(np.uint8))
    return Image.fromarray(255 - np.asarray(image)) if inverted else image


def is_white_zero(image: Image.Image) -> bool:
    """Whether the least level of a deep picture is its white."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in DEEP_MODES and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def _require_one_picture(image: Image.Image, path: FilmFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise FilmError(too_large(image.width, image.height), path, "Make it smaller, or remove its row.")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise FilmError(f"{frames} pictures in one file", path, "Export the one that is meant, or remove the row.")
    if image.mode not in DEEP_MODES and _is_cut(image):
        raise FilmError("colours of 16 bits, which would be cut to 8", path, "Save the film as a 16-bit grey PNG.")


def _is_cut(image: Image.Image) -> bool:
    """Whether Pillow will keep the upper 8 bits alone of a picture's channels, by what the file says of its pixels."""
    tiles = getattr(image, "tile", ())
    if not tiles:
        return False
    coder, *_, arguments = tiles[0]
    raw_mode, *others = arguments if isinstance(arguments, tuple) else (arguments,)
    deepest = max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))
    brightest = others[0] if coder == "ppm" else 0
    return bool(DEEP_CHANNELS.search(str(raw_mode))) or coder == "SGI16" or deepest > 8 or brightest > WHITE


def _kind(image: Image.Image) -> Kind:
    if image.mode not in DEEP_MODES:
        return EIGHT_BITS
    if image.mode == "F":
        return Kind(name=f"float {image.format}", bits=None)
    if image.mode == "I" and image.format != "PNG":
        return Kind(name=f"32-bit integer {image.format}", bits=31)
    return Kind(name=f"16-bit {image.format}", bits=16)
