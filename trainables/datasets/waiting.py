"""Pictures that were made at the first look at films, on disk until they are written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.files import NO_ROOM

ROOM: Final = 2.5
"""Times the pictures that must be free: they wait here, are written as the data set, and leave some room to others."""


class WaitingPictures:
    """Pictures of one size in a file without a name, which is gone with the process.

    Args:
        folder: on whose disk it lies.
        side: of the pictures in pixels.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self._file, self._side = tempfile.TemporaryFile(dir=folder), side  # noqa: SIM115  # it is open as long as this is
        self._end, self._has_room = 0, True

    def keep(self, picture: NDArray[np.uint8]) -> int | None:
        """Where the picture waits; None where the disk is full after all, and the film is to be read again."""
        if not self._has_room:
            return None
        try:
            _write_all(self._file.fileno(), picture, self._end)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._has_room = False
            return None
        self._end += picture.nbytes
        return self._end - picture.nbytes

    def picture(self, place: int) -> NDArray[np.uint8]:
        """What was kept at a place."""
        content = os.pread(self._file.fileno(), self._side**2, place)
        return np.frombuffer(content, np.uint8).reshape(self._side, self._side)


def waiting_pictures(folder: Path | None, num_films: int, side: int) -> WaitingPictures | None:
    """A place for so many pictures, if there is a folder with room for them and for the data set.

    Args:
        folder: on whose disk they may wait; None: nowhere.
        num_films: how many there may be.
        side: of each in pixels.
    """
    if folder is None or shutil.disk_usage(folder).free < num_films * side**2 * ROOM:
        return None
    return WaitingPictures(folder, side)


def _write_all(handle: int, picture: NDArray[np.uint8], place: int) -> None:
    left = memoryview(np.ascontiguousarray(picture)).cast("B")
    while left:
        written = os.pwrite(handle, left, place)
        left, place = left[written:], place + written
