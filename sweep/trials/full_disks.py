"""Disks without room: no fault of a trial, and not mended by trying it again at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
"""What the system answers where a disk, or a user's share of one, is full."""


def is_full(reason: str) -> bool:
    """Whether a reason, as it is told, is that of a full disk."""
    return any(os.strerror(number) in reason for number in NO_ROOM)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Have a full disk in the block say where it is: what writes into an open file does not know its name."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(folder)
        raise


def full_disk(reason: str) -> OSError:
    """What ends a sweep whose trials found no room on a disk again and again; it goes on with them when there is."""
    return OSError(f"`disk` must have room for what trials write, but got {reason}. Free space there.")
