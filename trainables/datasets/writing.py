"""Writing a source as a prepared data set: read once, checked on the way, complete or absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from trainables.datasets.base import SPLITS, ImageTextSample, ImageTextSource
from trainables.datasets.files import partial_folder, require_free, synced_file
from trainables.datasets.store import CARD, FORMAT, PreparedDataset
from trainables.datasets.tensors import film_writer
from trainables.datasets.validation import SampleChecker

BATCH_BYTES = 16 * 2**20
PROGRESS_EVERY = 64


def write_dataset(
    source: ImageTextSource, to: Path, *, on_progress: Callable[[int], None] | None = None
) -> PreparedDataset:
    """Read a source once, check it and write it as an Arrow data set.

    Args:
        source: where the samples come from.
        to: the folder to make; it must not exist or be empty. It appears only when it is complete.
        on_progress: called with the number of samples written so far, over all splits.

    Raises:
        FileExistsError: `to` already holds something.
        ValueError: a split or a condition is empty, an image is unreadable, or an image id occurs twice.
        OSError: the disk is full; nothing is left behind.
    """
    require_free(to)
    with partial_folder(to) as partial:
        writer = _DatasetWriter(source, partial, on_progress)
        for split in SPLITS:
            writer.write_split(split)
        writer.write_card()
    return PreparedDataset.open(to)


class _DatasetWriter:
    """Streams one source into Arrow files, checking on the way."""

    def __init__(self, source: ImageTextSource, folder: Path, on_progress: Callable[[int], None] | None) -> None:
        self._source = source
        self._folder = folder
        self._on_progress = on_progress
        self._checker = SampleChecker(source)

    def write_split(self, split: str) -> None:
        with film_writer(self._folder / f"{split}.arrow", self._source.resolution_px) as write:
            for batch in self._batches(split):
                write(batch)
                self._report()
        self._checker.require_filled(split)

    def write_card(self) -> None:
        content = {
            "format": FORMAT,
            "name": self._source.name,
            "fingerprint": self._checker.fingerprint(),
            "source_fingerprint": self._source.fingerprint(),
            "conditions": list(self._source.conditions),
            "prompts": asdict(self._source.prompts),
            "rules": asdict(self._source.rules),
            "resolution_px": self._source.resolution_px,
            "num_samples": self._checker.num_samples,
            "said": list(self._source.said),
        }
        with synced_file(self._folder / CARD) as sink:
            sink.write(json.dumps(content, indent=2).encode())

    def _batches(self, split: str) -> Iterator[list[ImageTextSample]]:
        batch_size = max(1, BATCH_BYTES // self._source.resolution_px**2)
        batch: list[ImageTextSample] = []
        for sample in self._source.samples(split):
            self._checker.add(sample, split)
            batch.append(sample)
            if self._checker.num_seen % PROGRESS_EVERY == 0:
                self._report()
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _report(self) -> None:
        if self._on_progress:
            self._on_progress(self._checker.num_seen)
