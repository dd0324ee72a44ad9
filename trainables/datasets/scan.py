"""One look at every film before any is prepared: its levels, the hash of its file, what it roughly looks like.

Where it is clear before all films are seen which levels are black and white, the look makes the prepared picture as well:
films are then decoded once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import SourceOptions
from trainables.datasets.containers import DICOM, EIGHT_BITS, FULL, Levels
from trainables.datasets.ct_windows import CtWindow, window_of
from trainables.datasets.film_files import FilmFile
from trainables.datasets.images import FilmError, FilmReading, film_content, open_content, open_film
from trainables.datasets.parallel import Mapper, in_order

HASH_SIDE = 16
LOOKED_AT = (np.arange(8 * HASH_SIDE) + 0.5) / (8 * HASH_SIDE)
"""Places of the rows that a film's look is made of, 1 being its height."""
MAX_SAMPLED = 2**14
"""Pixels from which the dark and the bright end of a film are told, or somewhat more: 164 are beyond either. They are an odd number of
pixels apart, so that films whose sides are powers of two give of all of their columns."""
Progress = Callable[[int, int], None]
"""Takes how many films have been looked at, of how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What is known of a film's pixels.

    Attributes:
        levels: the kind of its container and the levels it holds.
        shape: rows and columns.
        look: 256 bits, each set where a sixteenth of the film is brighter than its left neighbour.
        file: SHA-256 of the file's bytes.
        picture: as it is to be prepared; None where black and white are not yet known.
    """

    levels: Levels
    shape: tuple[int, ...]
    look: bytes
    file: bytes
    picture: NDArray[np.uint8] | None = None

    @property
    def rough(self) -> bytes:
        """Equal for equal pixels whatever container holds them, and for few others."""
        return repr((self.shape, self.levels.low + 0.0, self.levels.high + 0.0)).encode() + self.look  # no -0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstLook:
    """Looks at one film; it can be pickled, for processes elsewhere.

    Attributes:
        window: through which CT is seen.
        reading: how pictures are made of the kinds of films whose range it has; None makes none.
    """

    window: CtWindow | None = None
    reading: FilmReading | None = None

    def __call__(self, film: tuple[str, FilmFile]) -> Scan | FilmError:
        """What is known of a film by its name and file, or why it cannot be read."""
        try:
            return scan_film(*film, self.window, self.reading)
        except FilmError as error:
            return error


def first_look(options: SourceOptions, *, with_pictures: bool) -> FirstLook:
    """How to look at films, and whether to make pictures of those that have one black and white whatever the others hold.

    Args:
        options: what the user said.
        with_pictures: whether they have a place to wait in.
    """
    window = window_of(options.window)
    given = options.bits is not None or options.grey_range is not None
    kinds = [DICOM, *([window.kind] if window else []), *([] if given else [EIGHT_BITS])]
    ranges = dict.fromkeys(kinds, FULL)
    reading = FilmReading(resolution_px=options.resolution_px, ranges=ranges, fit=options.fit, window=window)
    return FirstLook(window=window, reading=reading if with_pictures else None)


def scan_films(
    films: Sequence[tuple[str, FilmFile]],
    look: FirstLook,
    on_progress: Progress | None = None,
    mapper: Mapper = in_order,
) -> Iterator[Scan | FilmError]:
    """Look at films on all cores, one result each in their order; an error for one that cannot be read.

    Args:
        films: name and file of each.
        look: looks at each.
        on_progress: told after each film.
        mapper: has the cores.
    """
    for done, scan in enumerate(mapper(look, films), start=1):
        if on_progress:
            on_progress(done, len(films))
        yield scan


def scan_film(file: str, path: FilmFile, window: CtWindow | None = None, reading: FilmReading | None = None) -> Scan:
    """Look at one film.

    Args:
        file: the film, as messages name it.
        path: what it is read from.
        window: through which CT is seen.
        reading: how the picture is made, of a kind whose range it has.

    Raises:
        FilmError: it cannot be read, or has levels that are no numbers.
    """
    content = film_content(path)
    kind, image = open_content(content, path, window)
    levels = np.asarray(image)
    low, high = float(levels.min()), float(levels.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise FilmError("levels that are NaN or infinite", path)
    dark, bright = _hundredths(levels.reshape(-1)[:: max(1, levels.size // MAX_SAMPLED) | 1])
    prepared = reading.prepared(kind, image) if reading and kind in reading.ranges else None
    picture = levels if prepared is image else None if prepared is None else np.asarray(prepared)
    return Scan(
        levels=Levels(file=file, kind=kind, low=low, high=high, dark=dark, bright=bright),
        shape=levels.shape,
        look=_look(levels),
        file=hashlib.sha256(content).digest(),
        picture=picture,
    )


def _hundredths(levels: NDArray[np.generic]) -> tuple[float, float]:
    """The levels below and above which lies a hundredth, as `numpy.percentile` has them.

    Of 8 and 16 bits they are counted, which takes a third to a ninth of the time.
    """
    if levels.dtype not in (np.uint8, np.uint16):
        low, high = np.percentile(levels.astype(np.float64), (1, 99))
        return float(low), float(high)
    up_to = np.bincount(levels).cumsum()

    low, high = 0.01 * (len(levels) - 1), 0.99 * (len(levels) - 1)
    ranks = np.array((math.floor(low), math.ceil(low), math.floor(high), math.ceil(high)))
    a, b, c, d = up_to.searchsorted(ranks, side="right").tolist()
    return a + (b - a) * (low - math.floor(low)), c + (d - c) * (high - math.floor(high))


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelHash:
    """Reads a film again for SHA-256 of its shape and levels; it can be pickled, for processes elsewhere.

    Attributes:
        window: through which CT is seen.
    """

    window: CtWindow | None = None

    def __call__(self, path: FilmFile) -> bytes:
        """The same for equal levels, whatever container holds them.

        Raises:
            FilmError: the film cannot be read any more.
        """
        levels = np.asarray(open_film(path, self.window)[1])
        whole = np.issubdtype(levels.dtype, np.integer) or bool(
            np.array_equal(levels, np.rint(levels.astype(np.float64)))
        )
        low, high = levels.min(), levels.max()
        smallest = np.min_scalar_type(int(high)) if whole and low >= 0 and high < 2**32 else np.dtype(np.float64)
        digest = hashlib.sha256(repr((levels.shape, smallest.str)).encode())
        digest.update(np.ascontiguousarray(levels.astype(smallest, copy=False)).data)
        return digest.digest()


def _look(levels: NDArray[np.generic]) -> bytes:
    places, starts, widths = _tiles(*levels.shape)
    rows = levels[places].reshape(HASH_SIDE, -1, levels.shape[1])
    bands = rows.sum(axis=1, dtype=np.uint16 if rows.dtype == np.uint8 else np.float64)  # of eight rows: at most 2,040
    tiles = np.add.reduceat(bands, starts, axis=1, dtype=np.float64) / widths
    return np.packbits(tiles[:, 1:] > tiles[:, :-1]).tobytes()


@lru_cache(maxsize=16)
def _tiles(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows that are looked at, and where in each the tiles begin and how wide they are."""
    edges = np.arange(HASH_SIDE + 2) * width // (HASH_SIDE + 1)
    return (LOOKED_AT * height).astype(np.int64), edges[:-1], np.maximum(np.diff(edges), 1)
