"""One look at every film before any is prepared: its levels, its pixels' hash, and what it roughly looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.containers import Levels
from trainables.datasets.ct_windows import CtWindow
from trainables.datasets.film_files import FilmFile
from trainables.datasets.images import FilmError, open_film
from trainables.datasets.parallel import in_order

HASH_SIDE = 16
MAX_SAMPLED = 2**16
"""Pixels from which the dark and the bright end of a film are told."""
Progress = Callable[[int, int], None]
"""Takes how many films have been looked at, of how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What is known of a film's pixels.

    Attributes:
        levels: the kind of its container and the levels it holds.
        pixels: SHA-256 of shape and levels, equal for equal pixels whatever container holds them.
        look: 256 bits, each set where a sixteenth of the film is brighter than its left neighbour.
    """

    levels: Levels
    pixels: bytes
    look: bytes


def scan_films(
    films: Sequence[tuple[str, FilmFile]], on_progress: Progress | None = None, window: CtWindow | None = None
) -> Iterator[Scan | FilmError]:
    """Look at films on all cores, one result each in their order; an error for one that cannot be read.

    Args:
        films: name and file of each.
        on_progress: told after each film.
        window: through which CT is seen.
    """
    for done, scan in enumerate(in_order(lambda film: _scan_or_error(*film, window), films), start=1):
        if on_progress:
            on_progress(done, len(films))
        yield scan


def scan_film(file: str, path: FilmFile, window: CtWindow | None = None) -> Scan:
    """Look at one film.

    Args:
        file: the film, as messages name it.
        path: what it is read from.
        window: through which CT is seen.

    Raises:
        FilmError: it cannot be read, or has levels that are no numbers.
    """
    kind, image = open_film(path, window)
    levels = np.asarray(image)
    low, high = float(levels.min()), float(levels.max())
    if not np.isfinite([low, high]).all():
        raise FilmError("levels that are NaN or infinite", path)
    flat = levels.reshape(-1)[:: max(1, levels.size // MAX_SAMPLED)]
    dark, bright = (float(level) for level in np.percentile(flat, (1, 99)))
    known = Levels(file=file, kind=kind, low=low, high=high, dark=dark, bright=bright)
    return Scan(levels=known, pixels=_pixel_hash(levels, low, high), look=_look(image))


def _scan_or_error(file: str, path: FilmFile, window: CtWindow | None) -> Scan | FilmError:
    try:
        return scan_film(file, path, window)
    except FilmError as error:
        return error


def _pixel_hash(levels: NDArray[np.generic], low: float, high: float) -> bytes:
    whole = np.issubdtype(levels.dtype, np.integer) or bool(np.array_equal(levels, np.rint(levels.astype(np.float64))))
    smallest = np.min_scalar_type(int(high)) if whole and low >= 0 and high < 2**32 else np.dtype(np.float64)
    digest = hashlib.sha256(repr((levels.shape, smallest.str)).encode())
    digest.update(np.ascontiguousarray(levels.astype(smallest)).tobytes())
    return digest.digest()


def _look(image: Image.Image) -> bytes:
    small = np.asarray(image if image.mode == "L" else image.convert("F"))
    tiles = np.asarray(Image.fromarray(small).resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.float64)
    return np.packbits(tiles[:, 1:] > tiles[:, :-1]).tobytes()
