"""What a film is read from: a file of its own, or a row of a table that holds the file's bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from trainables.datasets.packed_rows import FileRows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PackedFilm:
    """A film whose file lies in a row of an Arrow or Parquet file; read like a path.

    Attributes:
        rows: of that file.
        column: that holds the films' bytes.
        row: from 0.
        place: that file as seen from the folder of the collection.
        stem: the name that the film's own file had, without its ending.
    """

    rows: FileRows
    column: str
    row: int
    place: str
    stem: str

    def __str__(self) -> str:
        """As messages name it."""
        return f"{self.place}, row {self.row + 1}"

    def read_bytes(self) -> bytes:
        """The film's file."""
        return self.rows.bytes_of(self.column, self.row)

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """The film's file, to be read from its beginning."""
        return io.BytesIO(self.read_bytes())


FilmFile = Path | PackedFilm


def shown(film: FilmFile, root: Path) -> str:
    """A film's place as messages give it: as seen from the folder of its collection."""
    if isinstance(film, PackedFilm):
        return str(film)
    # Not by pathlib, which takes a tenth of the time that a small film does.
    return "." if film == root else film.as_posix().removeprefix(root.as_posix().rstrip("/") + "/")
