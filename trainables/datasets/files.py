"""Files and folders that are there completely or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def require_free(to: Path) -> None:
    """Refuse a folder that holds something, or that cannot be made.

    Raises:
        FileExistsError: it holds something.
        OSError: the folder that it lies in cannot be written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"`to` must be a new or empty folder, but got {to}, which is not. Choose another.")
    lies_in = next(folder for folder in to.absolute().parents if folder.exists())
    if not lies_in.is_dir() or not os.access(lies_in, os.W_OK):
        raise OSError(f"`to` must lie in a folder that can be written, but got {to}. Choose another.")


def leads_out(path: Path, real_root: str) -> bool:
    """Whether a file lies outside of a folder, be it by its name or by a link on the way.

    Args:
        path: the file.
        real_root: what `os.path.realpath` gives for the folder.
    """
    return not Path(os.path.realpath(path)).is_relative_to(real_root)


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


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is on the disk, not only in its cache, when the block ends."""
    with path.open("wb") as raw:
        yield raw
        raw.flush()
        os.fsync(raw.fileno())
