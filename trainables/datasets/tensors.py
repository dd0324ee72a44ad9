"""Everything that is kept in Arrow: the films of a split and the tensors of a cache, memory-mapped when read."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import IOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from trainables.datasets.base import ImageTextSample
from trainables.datasets.checksums import CheckedArray, DamagedError, MappedFile, set_aside, sums_of, write_checksums
from trainables.datasets.files import remove_abandoned, synced_behind, synced_file

Tensors = Mapping[str, NDArray[Any]]
ARROW = pa.__version__
"""Another version may write the same films otherwise."""
BATCH_BYTES = 16 * 2**20
"""Of the pictures that are written together."""
IN_FILE = 8
"""Bytes at which the stream of batches begins in Arrow's file format, after its name."""


class FilmFile:
    """The films of one split: opening them reads no pixels, and processes of one machine share them.

    A part of the file is checked when it is first read; data sets of earlier versions have no checksums, and are not.

    Args:
        path: the Arrow file.
        resolution_px: side of the images.

    Raises:
        ValueError: the file is no complete Arrow file.
        DamagedError: its texts are not as they were written.
    """

    def __init__(self, path: Path, resolution_px: int) -> None:
        self._file = MappedFile(path)
        self._table = _read_table(self._file)
        self._chunks = _film_chunks(self._table, resolution_px)
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8[H, W], a read-only view of the file; the index is not checked.

        Raises:
            DamagedError: it is not as it was written.
        """
        chunk = int(np.searchsorted(self._ends, index, side="right"))
        image: NDArray[np.uint8] = self._chunks[chunk][index - int(self._ends[chunk])]
        place = self._file.place_of(image)
        self._file.require([(place, place + image.nbytes)])
        return image

    def require_all(self) -> None:
        """Check all of it.

        Raises:
            DamagedError: something is not as it was written.
        """
        self._file.require_all()

    def column(self, name: str) -> list[Any]:
        """A field of `ImageTextSample` other than the image, of every film."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values


def films_per_batch(resolution_px: int) -> int:
    """How many films are written together."""
    return max(1, BATCH_BYTES // resolution_px**2)


@contextmanager
def film_writer(path: Path, resolution_px: int) -> Iterator[Callable[[Sequence[ImageTextSample]], None]]:
    """A function that adds a batch of films to a file, which is complete when the block ends.

    What it has added outlives the process: `whole_batches` reads it. A file that is there is written over from its beginning;
    where the batches are the same again, so are its bytes.
    """
    memory = np.empty((0, resolution_px, resolution_px), np.uint8)

    def add(films: Sequence[ImageTextSample]) -> None:
        nonlocal memory
        if len(films) > len(memory):
            memory = np.empty((len(films), resolution_px, resolution_px), np.uint8)
        write(films, np.stack([film.image for film in films], out=memory[: len(films)]))
        sink.flush()
        sync()

    with synced_file(path, "r+b" if path.is_file() else "wb") as sink:
        with synced_behind(sink) as sync, films_into(sink, resolution_px) as write:
            yield add
        sink.truncate()
    write_checksums(path, lambda file: _film_chunks(_read_table(file), resolution_px))


@contextmanager
def films_into(
    sink: IOBase | BinaryIO, resolution_px: int
) -> Iterator[Callable[[Sequence[ImageTextSample], NDArray[np.uint8]], None]]:
    """A function that writes a batch of films with their images into an open file, which holds all when the block ends.

    Args:
        sink: the file, at its beginning.
        resolution_px: side of the films.
    """
    schema = _film_schema(resolution_px)
    with pa.ipc.new_file(sink, schema) as writer:
        yield lambda films, images: writer.write_batch(_film_batch(films, images, schema))


def whole_batches(path: Path, resolution_px: int, most: int) -> Iterator[list[ImageTextSample]]:
    """The first batches of films of a file that `film_writer` may not have completed.

    Args:
        path: the file.
        resolution_px: side of the images.
        most: how many batches.

    Raises:
        ValueError: one is damaged.
        OSError: the file cannot be read.
    """
    with pa.memory_map(str(path)) as file:
        file.seek(IN_FILE)
        reader = pa.ipc.open_stream(file)
        for _ in range(most):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            batch.validate(full=True)
            yield _films_in(batch, resolution_px)


def _films_in(batch: pa.RecordBatch, side: int) -> list[ImageTextSample]:
    images = _pixels(batch.column("image"), side).copy()
    rows = batch.drop_columns(["image"]).to_pylist()
    lists = ("conditions", "unknown")
    return [
        ImageTextSample(image=image, **{**row, **{name: tuple(row[name]) for name in lists}})
        for image, row in zip(images, rows, strict=True)
    ]


class TensorCache:
    """Arrays kept by the hash of what they were computed from, shared by all processes of a machine.

    Args:
        folder: where the files go; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_or_create(self, key: str, name: str, compute: Callable[[], Tensors]) -> Mapping[str, CheckedArray]:
        """The arrays stored under key and name, computed and stored first if need be.

        Of several processes that ask at once, one computes and the others wait for it.

        Args:
            key: a hash of everything that the arrays depend on.
            name: what they are, for example "latents".
            compute: makes the arrays; called only if they are not there.

        Returns:
            Memory-mapped, with the original shapes and dtypes; rows are checked when they are first read. A file whose
            damage shows is set aside, said and made again: here, or by whoever asks after a `DamagedError`.

        Raises:
            ValueError: key or name is no plain file name.
            OSError: the disk is full; nothing is left behind, and what is stored stays.
        """
        path = self.path(key, name)
        self._create(path, compute)
        try:
            return _read_tensors(path)
        except (ValueError, DamagedError):
            set_aside(path)
            self._create(path, compute)
            return _read_tensors(path)

    def create_if_free(self, key: str, name: str, compute: Callable[[], Tensors]) -> bool:
        """Have the arrays stored, as `get_or_create` does, unless another process is at it; says whether they are there.

        Args:
            key, name, compute: as for `get_or_create`.

        Raises:
            ValueError, OSError: as `get_or_create`.
        """
        try:
            self._create(self.path(key, name), compute, wait_s=0)
        except Timeout:
            return False
        return True

    def _create(self, path: Path, compute: Callable[[], Tensors], wait_s: float = -1) -> None:
        """Have a file written by at most one process, if it is not there.

        Args:
            path: the file.
            compute: makes its arrays.
            wait_s: for a process that is at it; -1: as long as it takes.

        Raises:
            Timeout: it was not done by then.
        """
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=wait_s):
            if not path.exists():
                remove_abandoned(path.parent, ".*.partial*")
                _write_tensors(path, compute())

    def path(self, key: str, name: str) -> Path:
        """The file that holds the arrays of this key and name."""
        for what, word in (("key", key), ("name", name)):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", word):
                raise ValueError(
                    f"`{what}` must be letters, digits, `_`, `.` and `-`, but got {word!r}. Hash it first."
                )
        return self.folder / name / f"{key}.arrow"


def _film_schema(resolution_px: int) -> pa.Schema:
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
            "unknown": pa.list_(pa.string()),
        }
    )


def _film_batch(films: Sequence[ImageTextSample], images: NDArray[np.uint8], schema: pa.Schema) -> pa.RecordBatch:
    pixels = pa.FixedSizeBinaryArray.from_buffers(schema.field("image").type, len(films), [None, pa.py_buffer(images)])
    others = [pa.array([getattr(film, field.name) for film in films], field.type) for field in list(schema)[1:]]
    return pa.record_batch([pixels, *others], schema=schema)


def _film_chunks(table: pa.Table, side: int) -> list[NDArray[np.uint8]]:
    return [_pixels(chunk, side) for chunk in table.column("image").chunks if len(chunk)]


def _pixels(chunk: pa.FixedSizeBinaryArray, side: int) -> NDArray[np.uint8]:
    flat = np.frombuffer(chunk.buffers()[1], np.uint8)
    return flat[chunk.offset * side**2 :][: len(chunk) * side**2].reshape(len(chunk), side, side)


def _read_table(file: MappedFile) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.py_buffer(file.content)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"`{file.path.name}` must be a complete Arrow file, but got {error}. Delete {file.path} and make it again."
        ) from error


def _write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a file whole or not at all."""
    schema = pa.schema(
        {"name": pa.string(), "dtype": pa.string(), "shape": pa.list_(pa.int64()), "data": pa.large_binary()}
    )
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with synced_file(partial) as sink, pa.ipc.new_file(sink, schema) as writer:
            for name, tensor in tensors.items():
                # A batch for each tensor: Arrow aligns every batch's data to 64 bytes, so that the views are aligned.
                writer.write_batch(_tensor_batch(name, tensor, schema))
        write_checksums(partial, lambda file: _tensors_in(file).values())
        sums_of(partial).replace(sums_of(path))
        partial.replace(path)
    finally:
        for left in (partial, sums_of(partial)):
            left.unlink(missing_ok=True)


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


def _read_tensors(path: Path) -> dict[str, CheckedArray]:
    file = MappedFile(path)
    if not file.has_checksums:
        raise DamagedError(f"`{path}` must have checksums beside it, but got none. Make it again.")
    return {name: CheckedArray(values, file) for name, values in _tensors_in(file).items()}


def _tensors_in(file: MappedFile) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for batch in _read_table(file).to_batches():
        name, dtype, shape = (batch.column(i)[0].as_py() for i in range(3))
        data = batch.column(3).buffers()[2]  # where it lies in the file; a scalar of the column is a copy in memory
        tensors[name] = np.frombuffer(data or b"", np.dtype(dtype)).reshape(shape)
    return tensors
