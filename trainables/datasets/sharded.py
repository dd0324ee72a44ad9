"""Arrays that are larger than memory: filled in parts by whichever processes are free, each part written once."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trainables.datasets.checksums import CheckedArray
from trainables.datasets.tensors import TensorCache

SHARD_BYTES: Final = 32 * 2**20
"""Of one part: that much is done again where a process dies, and that much memory a part takes while it is made."""
MOST_SHARDS: Final = 256
"""Parts of an array, which are larger where there would be more: each is an open file as long as it is used, of which a
process may have 1,024."""
REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system answers where this user, or this machine, may not write."""
LOOK_S: Final = 0.5
"""How often is looked whether parts are there that other processes make."""
Compute = Callable[[int, int], NDArray[Any]]
"""Gives the rows from the first number to below the second."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an array is like, and how it is cut.

    Attributes:
        shape: of all of it, rows first; it has values.
        dtype: of its values.
        step: rows that are computed together: parts are whole steps, so that values do not depend on how it is cut.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    step: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def rows_per_shard(self) -> int:
        """Rows of each part but the last."""
        num_steps = -(-self.shape[0] // self.step)
        return max(1, SHARD_BYTES // (self.row_bytes * self.step), -(-num_steps // MOST_SHARDS)) * self.step

    def shards(self) -> list[tuple[int, int]]:
        """First row, and the one after the last, of each part."""
        starts = range(0, self.shape[0], self.rows_per_shard)
        return [(start, min(start + self.rows_per_shard, self.shape[0])) for start in starts]


class CacheNotWritableError(RuntimeError):
    """The folder that is to be filled cannot be written by this process; what it holds already can be read."""


class ShardedArray:
    """Rows of one array that lie in several files; they are checked when they are first read.

    Args:
        shards: the parts in order, all but the last of equally many rows.
    """

    def __init__(self, shards: Sequence[CheckedArray]) -> None:
        self._shards = shards
        self._rows_per_shard = len(shards[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return len(self), *self._shards[0].shape[1:]

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self._rows_per_shard * (len(self._shards) - 1) + len(self._shards[-1])

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[Any]:
        """A copy of some rows, in their order.

        Raises:
            DamagedError: they are not as they were written; their part is set aside, and made again by whoever asks anew.
        """
        places = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        values = np.empty((len(places), *self.shape[1:]), self._shards[0].dtype)
        of_shard, row_in_shard = np.divmod(places, self._rows_per_shard)
        for shard in np.unique(of_shard):
            chosen = of_shard == shard
            values[chosen] = self._shards[shard][row_in_shard[chosen]]
        return values


def get_or_fill(folder: Path, name: str, key: str, layout: Layout, compute: Compute) -> ShardedArray:
    """An array kept by the hash of what it is computed from, and made first if need be.

    Processes of any machines that see the folder fill it together: each takes the next part that nobody has. A part is
    there whole or not at all; where all processes die, the next one goes on with the parts that are missing.

    Args:
        folder: shared by all; made when first needed.
        name: what the values are, for example "moments".
        key: a hash of everything that they depend on.
        layout: shape and type.
        compute: called for the parts that are not there.

    Raises:
        ValueError: name or key is no plain file name.
        OSError: the disk has no room for what is missing, which is seen before anything is computed, or it is full.
        CacheNotWritableError: something is missing, and this process cannot write there.
    """
    parts, shards = TensorCache(folder / name), layout.shards()

    def make(shard: tuple[int, int]) -> dict[str, NDArray[Any]]:
        return {name: compute(*shard)}

    missing = [shard for shard in shards if not parts.path(_called(shard), key).exists()]
    if missing:
        require_room(folder, sum(stop - start for start, stop in missing) * layout.row_bytes, name)
    with _refusal_named(folder):
        while missing := [
            shard for shard in missing if not parts.create_if_free(_called(shard), key, partial(make, shard))
        ]:
            time.sleep(LOOK_S)
        return ShardedArray([parts.get_or_create(_called(shard), key, partial(make, shard))[name] for shard in shards])


@contextmanager
def _refusal_named(folder: Path) -> Iterator[None]:
    """Say of a folder that refuses to be written whose it should be: whoever chose it may have been allowed to.

    Raises:
        CacheNotWritableError: it did so in the block.
    """
    try:
        yield
    except OSError as error:
        there, root = Path(os.fsdecode(error.filename or "")).absolute(), folder.absolute()
        if error.errno not in REFUSED or not (there.is_relative_to(root) or root.is_relative_to(there)):
            raise
        raise CacheNotWritableError(
            f"`cache.path` must be a folder that every machine of the sweep can write, but got {error.strerror} at "
            f"{str(there)!r} on {platform.node()}. Let it write there, or give another with --set cache.path=FOLDER."
        ) from error


def _called(shard: tuple[int, int]) -> str:
    return f"{shard[0]:09}-{shard[1]:09}"


def require_room(folder: Path, num_bytes: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: where it is to be written; it need not be there yet.
        num_bytes: how much.
        what: names it in the message.

    Raises:
        OSError: there is less room.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"No space left on device: `{what}` need {num_bytes / 1e9:.3f} GB, but the disk has {free / 1e9:.3f} GB. Free "
            "some, or keep them elsewhere with --set cache.path=FOLDER",
            str(folder),
        )
