"""What an attempt at a prepared data set has done, so that the next one goes on where it was broken off."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from trainables.datasets.base import ImageTextSample
from trainables.datasets.checksums import DamagedError
from trainables.datasets.direct import HALF_NAMED
from trainables.datasets.files import LOCK, synced_file
from trainables.datasets.tensors import whole_batches

PROGRESS: Final = "progress.jsonl"
KEY, SPLIT, FINGERPRINT = "key", "split", "fingerprint"


class Attempt:
    """The films that are written already, batch by batch, with the running fingerprint after each.

    A file of films is only whole when its last batch is written and its index follows. What an earlier attempt wrote of it
    is therefore read, checked by the fingerprints that were noted, and written over itself, which takes no further room.

    Args:
        folder: in which the data set is made.
        key: of all that its films follow from; what is there of another is removed.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._path = folder, folder / PROGRESS
        lines = _lines(self._path)
        if not lines or lines[0].get(KEY) != key:
            clear(folder)
            lines = [{KEY: key}]
        for path in folder.glob(HALF_NAMED):
            path.unlink()
        self._left: dict[str, list[str]] = defaultdict(list)
        for line in lines[1:]:
            self._left[line[SPLIT]].append(line[FINGERPRINT])
        with synced_file(rewritten := self._path.with_suffix(".new")) as sink:
            sink.writelines(_encoded(line) for line in lines)
        rewritten.replace(self._path)

    def written(self, path: Path, resolution_px: int) -> Iterator[tuple[list[ImageTextSample], str]]:
        """The batches that a file of films holds, with the fingerprint after each.

        Args:
            path: the file, called by its split.
            resolution_px: side of the films.

        Raises:
            DamagedError: it holds fewer than were noted, or they cannot be read.
        """
        noted = self._left[path.stem]
        try:
            yield from zip(whole_batches(path, resolution_px, len(noted)) if noted else (), noted, strict=True)
        except (ValueError, OSError) as error:
            raise DamagedError(f"`{path}` must hold the films that were written to it, but got {error}.") from error

    def note(self, path: Path, fingerprint: str) -> None:
        """Keep that a batch stands in a file, with the fingerprint of all films so far."""
        with self._path.open("ab") as file:
            file.write(_encoded({SPLIT: path.stem, FINGERPRINT: fingerprint}))

    def end(self) -> None:
        """Leave nothing beside the data set."""
        self._path.unlink()


def clear(folder: Path) -> None:
    """Remove all that an attempt left."""
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def _lines(path: Path) -> list[dict[str, Any]]:
    """What was noted, without a last line that was not finished."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not text.endswith(b"\n") or not isinstance(line, dict):
            break
        lines.append(line)
    return lines


def _encoded(line: Mapping[str, str]) -> bytes:
    return json.dumps(line).encode() + b"\n"
