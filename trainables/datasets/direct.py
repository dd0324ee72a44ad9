"""Files that are written past the system's cache.

Nobody reads them soon, and to make room for them in the cache costs more than to write them.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
import tempfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.checksums import PART_BYTES

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK_BYTES: Final = 4 * PART_BYTES
NUM_CHUNKS: Final = 3
"""One is filled, and the others are on their way to the disk."""
BLOCK_BYTES: Final = 4096
"""What a disk writes at once: such files are written in whole ones, and cut to their length at the end."""
DIRECT: Final = getattr(os, "O_DIRECT", 0)
OPEN_FILES: Final = Path("/proc/self/fd")
"""By which Linux opens a file without a name once more; other systems cannot."""
HALF_NAMED: Final = ".*.half"
"""What a file is called beside the name that it takes from another, until it has it; a process that dies then leaves it."""


class DirectFile(io.RawIOBase):
    """A new file without a name, written once from its beginning to its end, and gone with the process unless it is named.

    Args:
        folder: on whose disk it lies.
        memory: from which arrays are written.

    Attributes:
        places: `[start, stop)` in the file of what was written from the beginning of that memory.
    """

    _handle = -1
    """Until the file is open, and when it is closed."""

    def __init__(self, folder: Path, memory: NDArray[np.uint8]) -> None:
        self.places: list[tuple[int, int]] = []
        self._memory = memory.ctypes.data
        self._chunks = deque(mmap.mmap(-1, CHUNK_BYTES) for _ in range(NUM_CHUNKS))
        self._begun: deque[Future[Any]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._sent = self._filled = 0
        self._sums: list[int] = []
        self._handle, self._can_be_named = _nameless(folder)

    @property
    def path(self) -> Path:
        """By which it can be opened as long as this object lives."""
        return OPEN_FILES / str(self._handle)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: ReadableBuffer) -> int:
        """Add bytes.

        Raises:
            OSError: some before them cannot be written.
        """
        with memoryview(content) as view, view.cast("B") as left:
            if getattr(content, "address", None) == self._memory:  # as the buffers of Arrow have
                self.places.append((self._sent + self._filled, self._sent + self._filled + len(left)))
            start = 0
            while start < len(left):
                end = min(len(left), start + CHUNK_BYTES - self._filled)
                self._chunks[0][self._filled : self._filled + end - start] = left[start:end]
                self._filled, start = self._filled + end - start, end
                if self._filled == CHUNK_BYTES:
                    self._send()
            return len(left)

    def complete(self) -> Future[list[int]]:
        """Have the file on the disk, and then the CRC-32 of each of its parts, or an error where some of it cannot be written.

        Raises:
            OSError: that is known already.
        """
        size = self._sent + self._filled
        self._send()
        begun = tuple(self._begun)

        def finish() -> list[int]:
            for put in begun:
                put.result()
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
            return self._sums

        completed = self._thread.submit(finish)
        self._begun.append(completed)
        self._thread.shutdown(wait=False)
        self._chunks.clear()
        return completed

    def named(self, path: Path) -> bool:
        """Give the file a name in place of another file of that name, and say whether it has it; it has one at most.

        Where it cannot have the name, the other file stays.

        Raises:
            OSError: the disk does not keep the name.
        """
        state = os.fstat(self._handle)
        if state.st_nlink or not self._can_be_named:
            return path.exists() and os.path.samestat(path.stat(), state)
        folder, hidden = os.open(path.parent, os.O_RDONLY), HALF_NAMED.replace("*", path.stem)
        try:
            with suppress(FileNotFoundError):
                os.unlink(hidden, dir_fd=folder)
            os.link(self.path, hidden, dst_dir_fd=folder)  # given a folder, it follows the link to the file
            os.replace(hidden, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:  # it lies on another disk, or had a name that is gone
            return False
        finally:
            os.close(folder)
        os.fsync(self._handle)
        return True

    def close(self) -> None:
        """Give its room back to the disk, unless it was named."""
        if self._handle >= 0:
            self._thread.shutdown(wait=False)
            try:
                wait(self._begun)  # not for the thread: it may be this one, which dropped the file last
            finally:
                handle, self._handle = self._handle, -1
                os.close(handle)
        super().close()

    def _send(self) -> None:
        """Have the chunk written while the next one is filled."""
        self._begun.append(self._thread.submit(self._put, self._chunks[0], self._filled, self._sent))
        self._sent, self._filled = self._sent + self._filled, 0
        self._chunks.rotate(-1)
        if len(self._begun) == NUM_CHUNKS:
            self._begun.popleft().result()

    def _put(self, chunk: mmap.mmap, length: int, place: int) -> None:
        with memoryview(chunk) as view:
            self._sums += [
                zlib.crc32(view[start : min(start + PART_BYTES, length)]) for start in range(0, length, PART_BYTES)
            ]
            whole = -(-length // BLOCK_BYTES) * BLOCK_BYTES
            done = 0
            while done < whole:
                done += self._written(view[done:whole], place + done)

    def _written(self, content: memoryview, place: int) -> int:
        try:
            return os.pwrite(self._handle, content, place)
        except OSError as error:
            flags = fcntl.fcntl(self._handle, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & DIRECT:
                raise
            fcntl.fcntl(self._handle, fcntl.F_SETFL, flags & ~DIRECT)  # the file system takes it by its cache alone
            return os.pwrite(self._handle, content, place)


def _nameless(folder: Path) -> tuple[int, bool]:
    """An open file without a name, and whether it can be given one."""
    for flags in (DIRECT, 0):
        with suppress(OSError, AttributeError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | flags, 0o666), True
    handle, name = tempfile.mkstemp(dir=folder)
    Path(name).unlink()
    return handle, False
