"""Folders that commands write: whole or not at all, and never over what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.datasets.files import partial_folder, require_free


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `to` that takes its name when the block ends well, and goes when it does not.

    Raises:
        FileExistsError: `to` is a file, or a folder that is not empty.
        OSError: Another has filled `to` in the meantime.
    """
    require_free(to)
    with partial_folder(to.absolute()) as partial:
        yield partial
