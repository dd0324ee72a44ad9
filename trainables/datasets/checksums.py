"""Checksums by part of files that are mapped: each part is checked when it is first read in a process, and no other."""

from __future__ import annotations

import itertools
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.files import synced_file
from trainables.datasets.parallel import by_threads

PART_BYTES: Final = 2**20
log = logging.getLogger(__name__)
Rows = int | slice | NDArray[np.int64]


class DamagedError(OSError):
    """Bytes of a file are not those that were written: the disk is at fault, and no configuration."""


def sums_of(path: Path) -> Path:
    """Where the checksums of a file are kept."""
    return path.with_name(f"{path.name}.sums")


def write_checksums(path: Path, arrays_of: Callable[[MappedFile], Iterable[NDArray[Any]]]) -> None:
    """Keep, beside a file that is complete, a CRC-32 of every part, and where it holds other things than arrays' values.

    Args:
        path: the file.
        arrays_of: gives the arrays that lie in it. All else is checked whenever the file is opened, before it is trusted.
    """
    file = MappedFile(path)
    starts = range(0, file.content.size, PART_BYTES)
    sums = list(by_threads(lambda start: zlib.crc32(file.content[start : start + PART_BYTES]), starts))
    places = [(start := file.place_of(array), start + array.nbytes) for array in arrays_of(file)]
    keep_checksums(path, sums, places)


def keep_checksums(path: Path, sums: Sequence[int], places: Iterable[tuple[int, int]]) -> None:
    """As `write_checksums`, by who knows what is in the file.

    Args:
        path: the file.
        sums: the CRC-32 of every part.
        places: `[start, stop)` of each array that lies in it.
    """
    size = path.stat().st_size
    edges = [0, *itertools.chain.from_iterable(sorted(place for place in places if place[0] < place[1])), size]
    heads = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    kept = {"bytes": size, "part_bytes": PART_BYTES, "crc32": list(sums), "heads": heads}
    with synced_file(sums_of(path)) as sink:
        sink.write(json.dumps(kept).encode())


class MappedFile:
    """A file mapped into memory whose parts are checked when they are first asked for.

    Args:
        path: the file; where it has no checksums, nothing of it is checked.

    Raises:
        DamagedError: it is shorter or longer than it was, its checksums cannot be read, or what is no array's is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: NDArray[np.uint8] = (
            np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        )
        self._inode = path.stat().st_ino
        self._sums: NDArray[np.uint32] | None = None
        if sums_of(path).is_file():
            heads = self._read_sums()
            self.require(heads)

    @property
    def has_checksums(self) -> bool:
        """Whether damage can be seen at all."""
        return self._sums is not None

    @property
    def is_checked(self) -> bool:
        """Whether nothing is left to check."""
        return self._sums is None or not self._unread.any()

    def _read_sums(self) -> list[tuple[int, int]]:
        try:
            kept = json.loads(sums_of(self.path).read_text())
            sums, part_bytes, num_bytes = np.array(kept["crc32"], np.uint32), int(kept["part_bytes"]), kept["bytes"]
            heads = [(int(start), int(stop)) for start, stop in kept["heads"]]
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self._damaged(f"checksums that cannot be read ({error})") from error
        if num_bytes != self.content.size or len(sums) != -(-num_bytes // part_bytes):
            raise self._damaged(f"{self.content.size} bytes where there were {num_bytes}")
        self._sums, self._part_bytes, self._unread = sums, part_bytes, np.ones(len(sums), np.bool_)
        return heads

    def require(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Check the parts that hold ranges of bytes, `[start, stop)`, unless that was done.

        Raises:
            DamagedError: a part is not as it was written.
        """
        if self.is_checked:
            return
        for start, stop in ranges:
            for part in range(start // self._part_bytes, -(-stop // self._part_bytes)):
                if self._unread[part]:
                    self._check(part)

    def _check(self, part: int) -> None:
        assert self._sums is not None
        start = part * self._part_bytes
        if zlib.crc32(self.content[start : start + self._part_bytes]) != self._sums[part]:
            raise self._damaged(f"other bytes from byte {start} on")
        self._unread[part] = False

    def require_all(self) -> None:
        """Check every part that was not.

        Raises:
            DamagedError: a part is not as it was written.
        """
        self.require([(0, self.content.size)])

    def place_of(self, array: NDArray[Any]) -> int:
        """Where in the file the bytes of an array that lies in it begin."""
        return int(array.__array_interface__["data"][0] - self.content.__array_interface__["data"][0])

    def set_aside(self) -> None:
        """Rename the file, so that it is made again, unless that was done by another process."""
        set_aside(self.path, self._inode)

    def _damaged(self, came: str) -> DamagedError:
        return DamagedError(f"`{self.path}` must hold what was written to it, but got {came}. Make it again.")


def set_aside(path: Path, inode: int | None = None) -> None:
    """Rename a damaged file or folder to `NAME.bad-1` or a further number, and say so.

    Args:
        path: what is damaged.
        inode: of the file that was; another one in its place is left alone.
    """
    if not path.exists() or inode not in (None, path.stat().st_ino):
        return
    names = (path.with_name(f"{path.name}.bad-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    path.replace(aside)
    log.warning("`%s` is damaged; it is kept as %s and made again.", path, aside.name)


class CheckedArray:
    """An array that lies in a mapped file: rows are checked when they are first read.

    Damage sets the file aside, so that whoever tries again makes it anew.
    """

    def __init__(self, values: NDArray[Any], file: MappedFile) -> None:
        """Take an array that lies in the file."""
        self._values, self._file = values, file
        self._start, self._row_bytes = file.place_of(values), values.nbytes // max(1, len(values) if values.ndim else 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array's values."""
        return self._values.dtype

    @property
    def size(self) -> int:
        """How many values there are."""
        return self._values.size

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        """Rows of the array by place, a view of the file for one or a slice.

        Raises:
            DamagedError: they are not as they were written.
        """
        if not self._file.is_checked:
            places = np.atleast_1d(np.arange(len(self))[rows])
            self._require((self._start + int(row) * self._row_bytes, self._row_bytes) for row in places)
        values: NDArray[Any] = self._values[rows]
        return values

    def whole(self) -> NDArray[Any]:
        """All of it, a read-only view of the file.

        Raises:
            DamagedError: it is not as it was written.
        """
        self._require([(self._start, self._values.nbytes)])
        return self._values

    def _require(self, places: Iterable[tuple[int, int]]) -> None:
        try:
            self._file.require((start, start + length) for start, length in places)
        except DamagedError:
            self._file.set_aside()
            raise
