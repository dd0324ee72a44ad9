"""Rows of Arrow and Parquet files whose columns may hold other files: films, with their bytes read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

NUM_GROUPS: Final = 4
"""Groups of rows whose bytes are kept, of all files together, so that films in their order unpack each group once."""


class FileRows(Protocol):
    """The rows of a file, of which a column may hold records of bytes."""

    @property
    def columns(self) -> list[str]:
        """Their names."""

    def column(self, name: str) -> list[Any]:
        """A column's values."""

    def texts_of(self, column: str, field: str) -> list[str | None]:
        """The texts of a field of a column of records; a ValueError where it has none."""

    def is_filled(self, column: str, field: str) -> list[bool]:
        """Whether a field of a column of records holds anything, by row; a ValueError where it has none."""

    def bytes_of(self, column: str, row: int) -> bytes:
        """The field `bytes` of a column of records, in one row."""


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, by column.

    Raises:
        ValueError: it is damaged, or none.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(str(error)) from error
    return rows


class ArrowRows:
    """The rows of an Arrow file in the streaming format, memory-mapped: bytes are read when they are asked for.

    Args:
        path: the file.

    Raises:
        ValueError: it is damaged, or none.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
            self._table.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(str(error)) from error
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], ArrowRows], tuple[Path]]:
        """Pickle the path: another process maps the file anew, and once for all films of it."""
        return _arrow_here, (self.path,)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self._table.column_names)

    def column(self, name: str) -> list[Any]:
        """A column's values."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def texts_of(self, column: str, field: str) -> list[str | None]:
        """The texts of a field of a column of records.

        Raises:
            ValueError: it has none.
        """
        texts: list[str | None] = _field(self._table, column, field).to_pylist()
        return texts

    def is_filled(self, column: str, field: str) -> list[bool]:
        """Whether a field of a column of records holds anything, by row.

        Raises:
            ValueError: it has none.
        """
        filled: list[bool] = pc.is_valid(_field(self._table, column, field)).to_pylist()
        return filled

    def bytes_of(self, column: str, row: int) -> bytes:
        """The field `bytes` of a column of records, in one row."""
        return bytes(self._table.column(column)[row]["bytes"].as_py())


class ParquetRows:
    """The rows of a Parquet file, which is open while it is read: bytes are unpacked a group of rows at a time.

    Args:
        path: the file.

    Raises:
        ValueError: it is damaged, or none.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._version = path, _version(path)
        with self._opened() as file:
            meta, self._schema = file.metadata, file.schema_arrow
            self._ends = np.cumsum([meta.row_group(number).num_rows for number in range(meta.num_row_groups)])

    def __reduce__(self) -> tuple[Callable[[Path], ParquetRows], tuple[Path]]:
        """Pickle the path: another process opens the file anew, and once for all films of it."""
        return _parquet_here, (self.path,)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self._schema.names)

    @cached_property
    def features(self) -> dict[str, Any]:
        """What the library `datasets` noted of the columns, and which hold records of bytes, as it stores images."""
        noted = (self._schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            features = json.loads(noted)["info"]["features"]
        except (ValueError, KeyError, TypeError):
            features = {}
        records = [field.name for field in self._schema if _holds_bytes(field.type)]
        return {**{name: {"_type": "Image"} for name in records}, **(features if isinstance(features, dict) else {})}

    def column(self, name: str) -> list[Any]:
        """A column's values.

        Raises:
            ValueError: it is damaged.
        """
        with self._opened() as file:
            values: list[Any] = file.read([name]).column(name).to_pylist()
        return values

    def texts_of(self, column: str, field: str) -> list[str | None]:
        """The texts of a field of a column of records.

        Raises:
            ValueError: it has none, or is damaged.
        """
        with self._opened() as file:
            texts: list[str | None] = _field(file.read([f"{column}.{field}"]), column, field).to_pylist()
        return texts

    def is_filled(self, column: str, field: str) -> list[bool]:
        """Whether a field of a column of records holds anything, by row; a group is in memory at a time.

        Raises:
            ValueError: it has none, or is damaged.
        """
        filled: list[bool] = []
        with self._opened() as file:
            for group in range(len(self._ends)):
                records = file.read_row_group(group, [f"{column}.{field}"])
                filled += pc.is_valid(_field(records, column, field)).to_pylist()
        return filled

    def bytes_of(self, column: str, row: int) -> bytes:
        """The field `bytes` of a column of records, in one row.

        Raises:
            ValueError: it is damaged, or another one than it was.
        """
        group = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[group - 1]) if group else 0
        with _unpacking:
            records = _records(self, column, group)
        return bytes(records[row - start].as_py())

    def group(self, column: str, number: int) -> pa.ChunkedArray:
        """The field `bytes` of a column of records, in one group of rows.

        Raises:
            ValueError: it is damaged, or another one than it was.
        """
        with self._opened() as file:
            return _field(file.read_row_group(number, [f"{column}.bytes"]), column, "bytes")

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path) as file:
                if _version(self.path) != self._version:
                    raise ValueError("a file that was changed while it was read")
                yield file
        except (pa.ArrowException, OSError) as error:
            raise ValueError(str(error)) from error


_unpacking = Lock()
"""Held while a group is looked for, so that threads with films of one group unpack it once."""


@lru_cache(maxsize=NUM_GROUPS)
def _records(rows: ParquetRows, column: str, group: int) -> pa.ChunkedArray:
    return rows.group(column, group)


def _version(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise ValueError(str(error)) from error
    return state.st_mtime_ns, state.st_size


def _holds_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return bool(pa.types.is_binary(kind.field("bytes").type) or pa.types.is_large_binary(kind.field("bytes").type))


def _field(table: pa.Table, column: str, field: str) -> pa.ChunkedArray:
    try:
        return pc.struct_field(table.column(column), field)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise ValueError(f"no field {field} in column {column}") from error


@lru_cache(maxsize=16)
def _arrow_here(path: Path) -> ArrowRows:
    return ArrowRows(path)


@lru_cache(maxsize=16)
def _parquet_here(path: Path) -> ParquetRows:
    return ParquetRows(path)
