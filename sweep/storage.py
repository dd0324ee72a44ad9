"""Folders that commands write: whole or not at all, and never over what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.datasets.files import partial_folder, require_free


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """Fill a temporary folder beside `to` that takes its name when the block ends well, and goes when it does not.

    Whatever wrote its files, they may be read by whom the umask says.

    Raises:
        FileExistsError: `to` is a file, or a folder that is not empty.
        OSError: Another has filled `to` in the meantime.
    """
    require_free(to)
    with partial_folder(to.absolute()) as partial:
        yield partial
        _as_the_umask_says(partial)


def _as_the_umask_says(folder: Path) -> None:
    """Some libraries write files that their owner alone may read."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
