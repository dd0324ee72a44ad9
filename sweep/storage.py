"""Folders that commands write: whole or not at all, and never over what is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `to` that takes its name when the block ends well, and goes when it does not.

    Raises:
        FileExistsError: `to` is a file, or a folder that is not empty.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(
            f"`--to` must be a new or empty folder, but got {str(to)!r}, which holds something. Name another folder."
        )
    to = to.absolute()
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
