"""Writing a source as a prepared data set: checked on the way, complete or absent, gone on with where it was broken off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from trainables.datasets.attempts import Attempt, clear
from trainables.datasets.base import SPLITS, ImageTextSample, ImageTextSource
from trainables.datasets.checksums import DamagedError
from trainables.datasets.files import full_disk_named, require_free, resumable_folder, synced_file
from trainables.datasets.store import CARD, FORMAT, PreparedDataset
from trainables.datasets.tensors import ARROW, film_writer, films_per_batch
from trainables.datasets.validation import SampleChecker

PROGRESS_EVERY = 64
NO_ROOM_LEFT = "What is written is kept: free space there, and the same command goes on."
OnProgress = Callable[[int], None]


def write_dataset(
    source: ImageTextSource,
    to: Path,
    *,
    on_progress: OnProgress | None = None,
    finish: Callable[[PreparedDataset], None] | None = None,
) -> PreparedDataset:
    """Read a source once, check it and write it as an Arrow data set.

    Where the process dies, or finds the disk full, the films that are written stay in a hidden folder beside `to`, and the
    next call of the same source goes on with them, to the same bytes.

    Args:
        source: where the samples come from.
        to: the folder to make; it must not exist or be empty. It appears only when it is complete.
        on_progress: called with the number of samples written so far, over all splits.
        finish: adds to the folder what describes the data set, before it appears.

    Raises:
        FileExistsError: `to` already holds something.
        ValueError: a split or a condition is empty, an image is unreadable, or an image id occurs twice; nothing is left.
        OSError: another process makes the same folder, or the disk is full.
    """
    require_free(to)
    with resumable_folder(to) as folder, full_disk_named(folder, NO_ROOM_LEFT):
        fingerprint = source.fingerprint()
        try:
            attempt = _write(source, fingerprint, folder, on_progress)
        except DamagedError:  # as a machine that lost its power leaves it
            clear(folder)
            attempt = _write(source, fingerprint, folder, on_progress)
        if finish is not None:
            finish(PreparedDataset.open(folder))
        attempt.end()
    return PreparedDataset.open(to)


def _write(source: ImageTextSource, fingerprint: str, folder: Path, on_progress: OnProgress | None) -> Attempt:
    batch_size = films_per_batch(source.resolution_px)
    attempt = Attempt(folder, f"{FORMAT} {source.name} {fingerprint} {batch_size} {ARROW}")
    writer = _DatasetWriter(source, attempt, batch_size=batch_size, on_progress=on_progress)
    writer.write(folder)
    with synced_file(folder / CARD) as sink:
        sink.write(json.dumps(writer.card(fingerprint), indent=2).encode())
    return attempt


class _DatasetWriter:
    """Streams one source into Arrow files, checking on the way."""

    def __init__(
        self, source: ImageTextSource, attempt: Attempt, *, batch_size: int, on_progress: OnProgress | None
    ) -> None:
        self._source, self._attempt = source, attempt
        self._batch_size, self._on_progress = batch_size, on_progress
        self._checker = SampleChecker(source.resolution_px, source.prompts)

    def write(self, folder: Path) -> None:
        """Write the files, unless the source has done so."""
        checker = self._source.written(folder)
        if checker is not None:
            self._checker = checker
            self._report()
        for split in SPLITS:
            if checker is None:
                self._write_split(split, folder / f"{split}.arrow")
            self._checker.require_filled(split, self._source.conditions)

    def _write_split(self, split: str, path: Path) -> None:
        """Write one file, with what an earlier attempt wrote of it before all else."""
        num_written, side = 0, self._source.resolution_px
        with film_writer(path, side) as write:
            for batch, fingerprint in self._attempt.written(path, side):
                self._check_again(batch, split, fingerprint)
                write(batch)
                num_written += len(batch)
                self._report()
            for batch in self._batches(split, num_written):
                write(batch)
                self._attempt.note(path, self._checker.fingerprint())
                self._report()

    def _check_again(self, batch: list[ImageTextSample], split: str, fingerprint: str) -> None:
        """Count films that were written before, if they are those.

        Raises:
            DamagedError: they are not.
        """
        for sample in batch:
            self._checker.add(sample, split)
        if self._checker.fingerprint() != fingerprint:
            raise DamagedError("`films` of an earlier attempt must be as they were written, but got others.")

    def card(self, fingerprint: str) -> dict[str, object]:
        """What `dataset.json` says.

        Args:
            fingerprint: the source's.
        """
        return {
            "format": FORMAT,
            "name": self._source.name,
            "fingerprint": self._checker.fingerprint(),
            "source_fingerprint": fingerprint,
            "conditions": list(self._source.conditions),
            "prompts": asdict(self._source.prompts),
            "rules": asdict(self._source.rules),
            "resolution_px": self._source.resolution_px,
            "num_samples": self._checker.num_samples,
            "said": list(self._source.said),
        }

    def _batches(self, split: str, num_written: int) -> Iterator[list[ImageTextSample]]:
        batch: list[ImageTextSample] = []
        for sample in self._source.samples_after(split, num_written):
            self._checker.add(sample, split)
            batch.append(sample)
            if self._checker.num_seen % PROGRESS_EVERY == 0:
                self._report()
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _report(self) -> None:
        if self._on_progress:
            self._on_progress(self._checker.num_seen)
