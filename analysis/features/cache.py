"""Features on disk: computed once, found by content, shared by processes, mapped and not read."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray

from analysis.files import remove_abandoned, whole_file

Features = NDArray[Any]
COLUMN = "features"
log = logging.getLogger(__name__)


class CacheWriteError(OSError):
    """Features could not be stored; nothing half-written is left."""


class CorruptCacheError(ValueError):
    """A file of the cache does not hold what it should."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureKey:
    """All that features depend on.

    Attributes:
        data: fingerprint of the images.
        extractor: the extractor's name.
        weights_hash: hash of the extractor's weights.
        preprocessing: names what was done to the images before.
        dtype: type of the features, such as `float32`.
        count: how many images there are.
    """

    data: str
    extractor: str
    weights_hash: str
    preprocessing: str
    dtype: str
    count: int

    @property
    def text(self) -> str:
        """The key as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def file_name(self) -> str:
        """Where the features of this key are found in any cache."""
        return f"{self.extractor}-{hashlib.sha256(self.text.encode()).hexdigest()[:40]}.arrow"


class FeatureCache:
    """A folder of feature files that any number of processes may use at once."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made where need be."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: FeatureKey) -> Path:
        """The file of a key, whether it is there or not."""
        return self.folder / key.file_name

    def get(self, key: FeatureKey) -> Features | None:
        """Features of a key, or None where they are not here; a damaged file counts as not here, with a warning.

        Once they are computed again, the damaged file stands beside as `NAME.bad-1`.
        """
        try:
            return _read(self.path(key), key)
        except FileNotFoundError:
            return None
        except CorruptCacheError as error:
            log.warning("%s They are computed again.", error)
            return None

    def get_or_compute(self, key: FeatureKey, compute: Callable[[], Features]) -> Features:
        """Features of a key, computed by at most one process at a time.

        Args:
            key: all that the features depend on.
            compute: gives real[count, d] in the key's dtype; called only where the cache does not have them.

        Returns:
            Memory-mapped, read-only [count, d].

        Raises:
            ValueError: `compute` gave another shape or dtype than the key says.
            CacheWriteError: the file cannot be written, for example because the disk is full.
        """
        features = self.get(key)
        if features is not None:
            return features
        with FileLock(f"{self.path(key)}.lock"):
            features = self.get(key)
            if features is not None:
                return features
            remove_abandoned(self.folder, ".*.tmp")
            self._set_aside(self.path(key))
            _write(self.path(key), key, compute())
            return _read(self.path(key), key)

    def _set_aside(self, damaged: Path) -> None:
        """Keep a file that is damaged, if one is there, as `NAME.bad-1` or a further number."""
        if damaged.exists():
            names = (damaged.with_name(f"{damaged.name}.bad-{number}") for number in itertools.count(1))
            damaged.replace(next(name for name in names if not name.exists()))


def _write(path: Path, key: FeatureKey, features: Features) -> None:
    expected = np.dtype(key.dtype)
    if features.ndim != 2 or len(features) != key.count or features.dtype != expected:
        raise ValueError(
            f"`compute` must give {expected}[{key.count}, d], but got {features.dtype}{list(features.shape)}. "
            "Correct the key or the extractor."
        )
    table = _batch(np.ascontiguousarray(features), key)
    try:
        with whole_file(path) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_batch(table)
    except OSError as error:
        raise CacheWriteError(
            f"`feature cache` must be writable, but got {error} at {str(path)!r}. Nothing half-written is left; "
            "free space or choose another folder, then run again."
        ) from error


def _batch(features: Features, key: FeatureKey) -> pa.RecordBatch:
    """One column of vectors, with key and checksum in its schema."""
    flat = pa.array(features.reshape(-1), type=pa.from_numpy_dtype(features.dtype))
    column = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
    metadata = {"key": key.text, "sha256": hashlib.sha256(features.data).hexdigest()}
    return pa.record_batch([column], schema=pa.schema([(COLUMN, column.type)], metadata=metadata))


def _read(path: Path, key: FeatureKey) -> Features:
    """Map a file, and check that it is whole and of that key."""
    if not path.exists():
        raise FileNotFoundError(f"`cache` must hold {path.name}, but got no such file. Compute the features first.")
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        features = _view(batch, np.dtype(key.dtype))
    except (pa.ArrowInvalid, OSError, IndexError, KeyError) as error:
        raise CorruptCacheError(f"`{path.name}` must be a whole Arrow file, but got: {error}.") from error
    metadata = {name.decode(): value.decode() for name, value in (batch.schema.metadata or {}).items()}
    if metadata.get("key") != key.text or len(features) != key.count:
        raise CorruptCacheError(f"`{path.name}` must be of key {key.text}, but got {metadata.get('key')}.")
    if metadata.get("sha256") != hashlib.sha256(features.data).hexdigest():
        raise CorruptCacheError(f"`{path.name}` must match its checksum, but got other values.")
    return features


def _view(batch: pa.RecordBatch, dtype: DTypeLike) -> Features:
    """The column as [n, d] on the mapped file, without a copy."""
    column = batch.column(COLUMN)
    view: Features = column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
    if view.dtype != dtype:
        raise pa.ArrowInvalid(f"values of {view.dtype} where {dtype} belongs")
    return view
