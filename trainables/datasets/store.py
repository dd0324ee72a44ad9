"""Prepared data sets and the cache of latents and embeddings: Arrow, written atomically, memory-mapped when read."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from trainables.datasets.base import SPLITS, ImageTextSample, ImageTextSource, require_split
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.files import partial_folder, require_free, synced_file
from trainables.datasets.validation import SampleChecker

FORMAT = 2
CARD = "dataset.json"
BATCH_BYTES = 16 * 2**20
PROGRESS_EVERY = 64
Tensors = Mapping[str, NDArray[Any]]
Fill = Callable[[NDArray[Any]], None]


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


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A complete data set on disk."""

    folder: Path
    name: str
    fingerprint: str
    """Hash of all samples: pixels, prompts, findings, patients, order."""
    source_fingerprint: str
    """What the source's `fingerprint()` said when the data set was written."""
    conditions: tuple[str, ...]
    prompts: PromptTemplate
    """How its captions are made, and all prompts that are to be like them."""
    resolution_px: int
    num_samples: Mapping[str, int]

    @staticmethod
    def open(folder: Path) -> PreparedDataset:
        """Open a folder that `write_dataset` made.

        Raises:
            FileNotFoundError: it is not such a folder.
            ValueError: it is of another format.
        """
        card = folder / CARD
        if not card.is_file():
            raise FileNotFoundError(
                f"`path` must be a prepared data set, but got {folder}, which has no {CARD}. "
                "Make one with `python -m sweep.prepare`."
            )
        content = json.loads(card.read_text())
        if content["format"] != FORMAT:
            raise ValueError(
                f"`format` of a prepared data set must be {FORMAT}, but got {content['format']} in {card}. "
                "Prepare it again."
            )
        del content["format"]
        read = {"conditions": tuple(content["conditions"]), "prompts": PromptTemplate(**content["prompts"])}
        return PreparedDataset(folder=folder, **{**content, **read})

    def split(self, name: str) -> PreparedSplit:
        """The images and texts of `train`, `validation` or `test`."""
        return PreparedSplit(self.folder / f"{require_split(name)}.arrow", self.resolution_px)

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts of images, patients and each condition, by split."""
        return {name: self._summary_of(self.split(name)) for name in SPLITS}

    def _summary_of(self, split: PreparedSplit) -> dict[str, int]:
        counts = Counter(condition for findings in split.conditions for condition in findings)
        return {
            "images": len(split),
            "patients": len(set(split.patient_ids)),
            **{condition: counts[condition] for condition in self.conditions},
        }


class PreparedSplit:
    """One split, memory-mapped: opening it reads no pixels, and workers of one machine share them.

    Args:
        path: the Arrow file.
        resolution_px: side of the images.
    """

    def __init__(self, path: Path, resolution_px: int) -> None:
        self.path = path
        self._side = resolution_px
        self._table = _read_table(path)
        self._chunks = [_pixels(chunk, resolution_px) for chunk in self._table.column("image").chunks if len(chunk)]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def resolution_px(self) -> int:
        """Side of the images."""
        return self._side

    def __reduce__(self) -> tuple[type[PreparedSplit], tuple[Path, int]]:
        """Pickle the path, never the pixels: a worker maps the file anew."""
        return PreparedSplit, (self.path, self._side)

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8[H, W], a read-only view of the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` must be in [0, {len(self)}), but got {index}")
        chunk = int(np.searchsorted(self._ends, index, side="right"))
        image: NDArray[np.uint8] = self._chunks[chunk][index - int(self._ends[chunk])]
        return image

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of several images, uint8[n, H, W]."""
        batch = np.empty((len(indices), self._side, self._side), np.uint8)
        for row, index in enumerate(indices):
            batch[row] = self.image(int(index))
        return batch

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of every image."""
        return self._strings("prompt")

    @cached_property
    def patient_ids(self) -> list[str]:
        """The patient of every image."""
        return self._strings("patient_id")

    @cached_property
    def image_ids(self) -> list[str]:
        """The name of every image in its source."""
        return self._strings("image_id")

    @cached_property
    def conditions(self) -> list[tuple[str, ...]]:
        """The findings of every image."""
        return [tuple(findings) for findings in self._table.column("conditions").to_pylist()]

    @cached_property
    def ages(self) -> list[int | None]:
        """Age in years of every image's patient, where known."""
        ages: list[int | None] = self._table.column("age").to_pylist()
        return ages

    @cached_property
    def sexes(self) -> list[str | None]:
        """ "F", "M" or None for every image."""
        sexes: list[str | None] = self._table.column("sex").to_pylist()
        return sexes

    @cached_property
    def views(self) -> list[str | None]:
        """ "PA", "AP" or None for every image."""
        views: list[str | None] = self._table.column("view").to_pylist()
        return views

    def indices_with(self, condition: str) -> NDArray[np.int64]:
        """Positions of the images with this finding, ascending."""
        return np.array([i for i, findings in enumerate(self.conditions) if condition in findings], np.int64)

    def _strings(self, column: str) -> list[str]:
        values: list[str] = self._table.column(column).to_pylist()
        return values


class TensorCache:
    """Arrays kept by the hash of what they were computed from, shared by all processes of a machine.

    Args:
        folder: where the files go; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_create(self, key: str, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """The arrays stored under key and name, computed and stored first if need be.

        Of several processes that ask at once, one computes and the others wait for it.

        Args:
            key: a hash of everything that the arrays depend on.
            name: what they are, for example "latents".
            compute: makes the arrays; called only if they are not there.

        Returns:
            Read-only, memory-mapped views with the original shapes and dtypes.

        Raises:
            ValueError: key or name is no plain file name, or the stored file is damaged.
            OSError: the disk is full; nothing is left behind, and what is stored stays.
        """
        self._create(key, name, lambda path: _write_tensors(path, compute()))
        return _read_tensors(self.path(key, name))

    def get_or_fill(self, key: str, name: str, empty: NDArray[Any], fill: Fill) -> NDArray[Any]:
        """One array, computed part by part straight into its file, so that memory never holds all of it.

        Args:
            key, name: as for `get_or_create`.
            empty: of the shape and dtype, not without elements; `numpy.zeros` takes no memory for it.
            fill: writes all of a writable array of that shape; called only if the file is not there.

        Returns:
            A read-only, memory-mapped view.

        Raises:
            ValueError, OSError: as `get_or_create`; a full disk is found before `fill` is called.
        """
        self._create(key, name, lambda path: _write_tensors(path, {name: empty}, fill))
        return _read_tensors(self.path(key, name))[name]

    def _create(self, key: str, name: str, write: Callable[[Path], None]) -> None:
        """Have a file written by at most one process, if it is not there."""
        path = self.path(key, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    write(path)

    def path(self, key: str, name: str) -> Path:
        """The file that holds the arrays of this key and name."""
        for what, word in (("key", key), ("name", name)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", word):
                raise ValueError(
                    f"`{what}` must be letters, digits, `_`, `.` and `-`, but got {word!r}. Hash it first."
                )
        return self.folder / name / f"{key}.arrow"


class _DatasetWriter:
    """Streams one source into Arrow files, checking on the way."""

    def __init__(self, source: ImageTextSource, folder: Path, on_progress: Callable[[int], None] | None) -> None:
        self._source = source
        self._folder = folder
        self._on_progress = on_progress
        self._checker = SampleChecker(source)
        self._schema = _sample_schema(source.resolution_px)

    def write_split(self, split: str) -> None:
        path = self._folder / f"{split}.arrow"
        with synced_file(path) as sink, pa.ipc.new_file(sink, self._schema) as writer:
            for batch in self._batches(split):
                writer.write_batch(_record_batch(batch, self._schema))
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
            "resolution_px": self._source.resolution_px,
            "num_samples": self._checker.num_samples,
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


def _sample_schema(resolution_px: int) -> pa.Schema:
    return pa.schema(
        {
            "image": pa.binary(resolution_px**2),
            "prompt": pa.string(),
            "conditions": pa.list_(pa.string()),
            "patient_id": pa.string(),
            "image_id": pa.string(),
            "age": pa.int32(),
            "sex": pa.string(),
            "view": pa.string(),
        }
    )


def _record_batch(samples: Sequence[ImageTextSample], schema: pa.Schema) -> pa.RecordBatch:
    images = np.stack([sample.image for sample in samples])
    pixels = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("image").type, len(samples), [None, pa.py_buffer(images)]
    )
    others = [pa.array([getattr(sample, field.name) for sample in samples], field.type) for field in list(schema)[1:]]
    return pa.record_batch([pixels, *others], schema=schema)


def _pixels(chunk: pa.FixedSizeBinaryArray, side: int) -> NDArray[np.uint8]:
    flat = np.frombuffer(chunk.buffers()[1], np.uint8)
    return flat[chunk.offset * side**2 :][: len(chunk) * side**2].reshape(len(chunk), side, side)


def _read_table(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"`{path.name}` must be a complete Arrow file, but got {error}. Delete {path} and make it again."
        ) from error


def _write_tensors(path: Path, tensors: Tensors, fill: Fill | None = None) -> None:
    """Write a file whole or not at all; `fill` puts values into the only tensor once there is room for it."""
    schema = pa.schema(
        {"name": pa.string(), "dtype": pa.string(), "shape": pa.list_(pa.int64()), "data": pa.large_binary()}
    )
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with synced_file(partial) as sink, pa.ipc.new_file(sink, schema) as writer:
            for name, tensor in tensors.items():
                # A batch for each tensor: Arrow aligns every batch's data to 64 bytes, so that the views are aligned.
                writer.write_batch(_tensor_batch(name, tensor, schema))
        if fill is not None:
            _fill_in_place(partial, next(iter(tensors.values())), fill)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _fill_in_place(path: Path, empty: NDArray[Any], fill: Fill) -> None:
    """Have the values of a file's only tensor written where they lie."""
    start = pa.memory_map(str(path)).read_buffer()
    place = pa.ipc.open_file(start).get_batch(0).column(3).buffers()[2].address - start.address
    values = np.memmap(path, empty.dtype, "r+", offset=place, shape=empty.shape)
    fill(values)
    values.flush()


def _tensor_batch(name: str, tensor: NDArray[Any], schema: pa.Schema) -> pa.RecordBatch:
    flat = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    offsets = pa.py_buffer(np.array([0, flat.nbytes], np.int64))
    data = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(flat)])
    columns = [
        pa.array([name]),
        pa.array([tensor.dtype.str]),
        pa.array([list(tensor.shape)], schema.field("shape").type),
    ]
    return pa.record_batch([*columns, data], schema=schema)


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    table = _read_table(path)
    tensors: dict[str, NDArray[Any]] = {}
    for batch in table.to_batches():
        name, dtype, shape = (batch.column(i)[0].as_py() for i in range(3))
        data = batch.column(3).buffers()[2]  # where it lies in the file; a scalar of the column is a copy in memory
        tensors[name] = np.frombuffer(data or b"", np.dtype(dtype)).reshape(shape)
    return tensors
