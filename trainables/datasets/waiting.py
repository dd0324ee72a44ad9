"""Films whose pictures were made at the first look, written as the data set will have them before it is known whether all stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.checksums import keep_checksums
from trainables.datasets.direct import OPEN_FILES, DirectFile
from trainables.datasets.files import NO_ROOM
from trainables.datasets.one_film import Film
from trainables.datasets.tensors import FilmFile, films_into, films_per_batch
from trainables.datasets.validation import SampleChecker

ROOM: Final = 2.5
"""Times the films that must be free: where some are left out after all, the others are written once more, and some room is for
others."""


class WaitingFilms:
    """The films of all splits in files without names, which are gone with the process unless they are given some.

    Args:
        folder: on whose disk they lie.
        side: of the pictures in pixels.
        prompts: how captions are made.
    """

    def __init__(self, folder: Path, side: int, prompts: PromptTemplate) -> None:
        self._folder, self._side, self._prompts = folder, side, prompts
        self._checker = SampleChecker(side, prompts)
        self._files: dict[str, DirectFile] = {}
        self._sums: dict[str, Future[list[int]]] = {}
        self._memory = np.empty((films_per_batch(side), side, side), np.uint8)
        self._batch: list[ImageTextSample] = []
        self._split, self._writer = "", ExitStack()
        self._write: Callable[[Sequence[ImageTextSample], NDArray[np.uint8]], None]
        self._are_there = True

    def keep(self, film: Film, picture: NDArray[np.uint8]) -> int | None:
        """Add a film, and say which of its split it is; None where no films wait any more.

        Args:
            film: those of a split come together, and the splits in the order of `SPLITS`.
            picture: of the film.

        Raises:
            OSError: the disk fails; it names the folder.
        """
        if not self._are_there:
            return None
        try:
            if film.split != self._split:
                self._begin(film.split)
            image = self._memory[len(self._batch)]
            image[:] = picture
            self._batch.append(film.sample(self._prompts, image))
            self._checker.add(self._batch[-1], film.split)
            if len(self._batch) == len(self._memory):
                self._flush()
        except (OSError, ValueError) as error:
            self._give_up(error)
            return None
        return self._checker.num_samples[film.split] - 1

    def _begin(self, split: str) -> None:
        self._end_split()
        self._split, self._files[split] = split, DirectFile(self._folder, self._memory)
        self._write = self._writer.enter_context(films_into(self._files[split], self._side))

    def _flush(self) -> None:
        self._write(self._batch, self._memory[: len(self._batch)])
        self._batch = []

    def _end_split(self) -> None:
        if self._split:
            with self._writer:
                if self._batch:
                    self._flush()
            self._sums[self._split] = self._files[self._split].complete()

    def end(self) -> None:
        """Have the files completed."""
        try:
            if self._are_there:
                self._end_split()
        except OSError as error:
            self._give_up(error)
        del self._memory, self._batch

    def _give_up(self, error: Exception) -> None:
        """Leave all films to be read again: the disk is full, or a film is wrong, of which who writes the data set tells.

        Raises:
            OSError: the disk is not full, but fails; it names the folder.
        """
        self.close()
        if isinstance(error, OSError) and error.errno not in NO_ROOM:
            error.filename = error.filename or str(self._folder)
            raise error

    def close(self) -> None:
        """Give the room of the films back to the disk, unless their files were named; none wait any more."""
        self._are_there = False
        with suppress(OSError, ValueError):
            self._writer.close()
        for file in self._files.values():
            file.close()
        self._sums.clear()

    def has_all(self, num_films: dict[str, int]) -> bool:
        """Whether so many films of each split wait, and no others; raises as `completed`."""
        return self.completed() and num_films == self._checker.num_samples

    def completed(self) -> bool:
        """Have the files on the disk, and say whether films wait in them: none do where there is no room for them.

        Raises:
            OSError: the disk fails; it names the folder.
        """
        try:
            for completed in self._sums.values():
                completed.result()
        except OSError as error:
            self._give_up(error)
        return self._are_there

    @cached_property
    def _films(self) -> dict[str, FilmFile]:
        return {split: FilmFile(file.path, self._side) for split, file in self._files.items()}

    def picture(self, split: str, place: int) -> NDArray[np.uint8]:
        """The picture of a film, when the files are complete."""
        return self._films[split].image(place)

    def give(self, folder: Path) -> SampleChecker | None:
        """Have the complete files named in a folder, with their checksums; None where they cannot be."""
        for split, file in self._files.items():
            path = folder / f"{split}.arrow"
            if not file.named(path):
                return None
            keep_checksums(path, self._sums[split].result(), file.places)
        return self._checker


def waiting_films(folder: Path | None, num_films: int, side: int, prompts: PromptTemplate) -> WaitingFilms | None:
    """A place for so many films, if there is a folder with room for them twice on a system where they can wait without a name.

    Args:
        folder: on whose disk they may wait; None: nowhere.
        num_films: how many there may be.
        side: of each picture in pixels.
        prompts: how captions are made.
    """
    if folder is None or not OPEN_FILES.is_dir() or shutil.disk_usage(folder).free < num_films * side**2 * ROOM:
        return None
    return WaitingFilms(folder, side, prompts)
