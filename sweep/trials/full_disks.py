"""Disks without room: no fault of a trial, and not mended by trying it again at once."""

from __future__ import annotations

import os

from trainables.datasets.files import NO_ROOM


def is_full(reason: str) -> bool:
    """Whether a reason, as it is told, is that of a full disk."""
    return any(os.strerror(number) in reason for number in NO_ROOM)


def full_disk(reason: str) -> OSError:
    """What ends a sweep whose trials found no room on a disk again and again; it goes on with them when there is."""
    return OSError(f"`disk` must have room for what trials write, but got {reason}. Free space there.")
