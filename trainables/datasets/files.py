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
    """Refuse a folder that holds something.

    Raises:
        FileExistsError: it does.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"`to` must be a new or empty folder, but got {to}, which is not. Choose another.")


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
