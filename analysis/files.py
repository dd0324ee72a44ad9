"""Files that are either whole or absent."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

ABANDONED_S: Final = 3600.0
"""Seconds after which an unfinished file that nobody has written to is that of a process that was killed."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system in the block, such as that of a full disk, say of which file it is."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def user_cache() -> Path:
    """Where the project keeps for the user's next process what takes long to make; it may not be there, or not be written.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "radiograph-sweep"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends well and goes when it does not.

    Args:
        path: the file to write; its folder is made where need be.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, naming(path):
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
