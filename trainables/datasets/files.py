"""Files and folders that are there completely or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, Literal

ABANDONED_S: Final = 3600.0
"""Seconds after which an unfinished file that nobody has written to is that of a process that was killed."""
LOCK: Final = "owner.lock"
NUM_FOLDERS: Final = 2**12
"""Whose place is kept of a collection's folders."""
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
"""What the system answers where a disk, or a user's share of one, is full."""
UNLOCKABLE: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems answer that have no locks."""


def require_free(to: Path) -> None:
    """Refuse a folder that holds something, or that cannot be made.

    Raises:
        FileExistsError: it holds something.
        OSError: the folder that it lies in cannot be written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"`to` must be a new or empty folder, but got {to}, which is not. Choose another.")
    lies_in = standing_folder(to)
    if not lies_in.is_dir() or not os.access(lies_in, os.W_OK):
        raise OSError(f"`to` must lie in a folder that can be written, but got {to}. Choose another.")


def standing_folder(to: Path) -> Path:
    """The nearest folder above one that is there already."""
    return next(folder for folder in to.absolute().parents if folder.exists())


class Inside:
    """Tells of many files whether they lie in a folder; links of folders are followed once as long as it lives.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._named = _as_beginning(os.path.normpath(root.absolute()))
        self._root = _as_beginning(os.path.realpath(root))
        self._real_folder = lru_cache(NUM_FOLDERS)(self._real)

    def has_file(self, path: Path) -> bool:
        """Whether there is a file of that name, and its name does not lead out of the folder."""
        try:
            return os.path.normpath(path.absolute()).startswith(self._named) and path.is_file()
        except OSError:  # a name that is too long, or a folder that may not be read
            return False

    def leads_out(self, path: Path) -> bool:
        """Whether a file lies outside of the folder, be it by its name or by a link on the way."""
        return not _as_beginning(self._real(os.fspath(path))).startswith(self._root)

    def _real(self, path: str) -> str:
        """As `os.path.realpath`, which looks at each folder above each file."""
        above, name = os.path.split(path)
        if name in ("", os.curdir) or os.pardir in path or os.path.islink(path):  # noqa: PTH114  # of a text
            return os.path.realpath(path)
        return _as_beginning(self._real_folder(above)) + name


def _as_beginning(folder: str) -> str:
    """What the places of all files in a folder begin with."""
    return folder.rstrip("/") + "/"


@contextmanager
def partial_folder(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes `to` if all goes well, and vanishes if not."""
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        yield partial
        partial.replace(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(to: Path) -> Path:
    """Where a folder lies while `resumable_folder` makes it."""
    return to.with_name(f".{to.name}.partial")


@contextmanager
def resumable_folder(to: Path) -> Iterator[Path]:
    """A folder beside `to` that becomes `to` if all goes well, and is there for the next attempt if the process dies.

    It vanishes where a `ValueError` says that nothing can come of it, and where it was left empty.

    Raises:
        FileExistsError: `to` holds something.
        OSError: another process has it.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(to)
    handle = _claimed(partial, to)
    try:
        require_free(to)
        yield partial
        partial.replace(to)
        (to / LOCK).unlink()
    except ValueError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if partial.is_dir() and [path.name for path in partial.iterdir()] == [LOCK]:
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _claimed(partial: Path, to: Path) -> int:
    """An open file in the folder, with a lock that ends with the process.

    Raises:
        OSError: another process has it.
    """
    while True:
        partial.mkdir(exist_ok=True)
        handle = os.open(partial / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise OSError(
                f"`to` must be made by one process at a time, but got {to}, which another is making. Wait for it, or "
                "choose another folder."
            ) from None
        except OSError as error:
            if error.errno in UNLOCKABLE:
                return handle
            os.close(handle)
            raise
        if (partial / LOCK).exists() and os.path.samestat(os.fstat(handle), (partial / LOCK).stat()):
            return handle
        os.close(handle)  # its last owner has just finished


@contextmanager
def full_disk_named(folder: Path, remedy: str = "") -> Iterator[None]:
    """Have a full disk in the block say where it is: what writes into an open file does not know its name.

    Args:
        folder: in which the block writes.
        remedy: what helps, as a note beside the error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(folder)
        if error.errno in NO_ROOM and remedy:
            error.add_note(remedy)
        raise


@contextmanager
def synced_file(path: Path, mode: Literal["wb", "r+b"] = "wb") -> Iterator[BinaryIO]:
    """A file that is on the disk, not only in its cache, when the block ends.

    Args:
        path: the file.
        mode: `wb` for a new one, `r+b` to write over one that is there.
    """
    with path.open(mode) as raw:
        yield raw
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def synced_behind(file: BinaryIO) -> Iterator[Callable[[], None]]:
    """A function that has a file's bytes brought to the disk while the next ones are made, and waits for those before.

    Args:
        file: it is open as long as the block lasts.
    """
    begun: list[Future[None]] = []

    def sync() -> None:
        if begun:
            begun.pop().result()
        begun.append(thread.submit(os.fsync, file.fileno()))

    with ThreadPoolExecutor(1) as thread:
        yield sync
        if begun:
            begun.pop().result()


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove what killed processes have left of files that they wrote.

    Locks of some file systems do not reach another machine, whose process may be writing such a file at this moment: what
    has changed within the hour stays.

    Args:
        folder: where the files are.
        pattern: of the unfinished files' names.
    """
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process was first
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()
