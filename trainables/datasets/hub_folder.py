"""A data set of Hugging Face's `datasets` on disk, as `save_to_disk` writes it, read without that library.

The hub's own snapshot of Parquet files is read as well: `hub_snapshot.py`.
A folder with `state.json`, `dataset_info.json` and `data-*.arrow`, or one with `dataset_dict.json` and such a folder for each
split. The films lie as bytes in the column of the feature `Image`; the other columns are those of `folder`, where labels may be
texts or the numbers of a `ClassLabel`. The splits of a dictionary are what `--split own` means.

Source: huggingface.co/docs/datasets, `Dataset.save_to_disk`; datasets 5.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from trainables.datasets.files import Inside
from trainables.datasets.film_files import PackedFilm, shown
from trainables.datasets.hub_snapshot import README, NoHubFolderError, snapshot_files
from trainables.datasets.packed_rows import ArrowRows, FileRows, ParquetRows
from trainables.datasets.problems import Ledger, listed
from trainables.datasets.rows import TableRow

DICTIONARY: Final = "dataset_dict.json"
STATE: Final = "state.json"
INFO: Final = "dataset_info.json"
IMAGE: Final = "Image"
FILE: Final = "file_name"
SAVED: Final = "Save the data set anew with `save_to_disk`."
FETCHED: Final = "Fetch the data set's Parquet files anew, and leave one configuration."
OF_DISK: Final = "a data set that `save_to_disk` wrote"
OF_HUB: Final = "a data set of the hub in Parquet files"
Features = Mapping[str, Any]


@dataclass(frozen=True)
class Shard:
    """One Arrow or Parquet file of a data set.

    Attributes:
        place: as seen from the folder of the collection.
        split: of a dictionary; empty for a data set alone.
        features: what its columns hold, by the data set's own account.
        rows: of the file.
    """

    place: str
    split: str
    features: Features
    rows: FileRows

    @cached_property
    def image(self) -> str:
        """The column with the films: the only one of images, or of several that which is called image.

        Raises:
            NoHubFolderError: there is none, or no telling which.
        """
        columns = [name for name, feature in self.features.items() if _kind(feature) == IMAGE]
        if len(columns) != 1 and "image" not in columns:
            raise NoHubFolderError(f"{listed(columns) or 'none'} in {self.place}")
        return "image" if "image" in columns else columns[0]

    @cached_property
    def films(self) -> list[PackedFilm | str]:
        """Of each row the film's bytes, or where there are none the path that it names, from the folder of the collection."""
        try:
            names, has_bytes = self.rows.texts_of(self.image, "path"), self.rows.is_filled(self.image, "bytes")
        except ValueError as error:
            raise NoHubFolderError(f"{error} in {self.place}") from error
        return [self._film(row, name or "") if has_bytes[row] else name or "" for row, name in enumerate(names)]

    def _film(self, row: int, name: str) -> PackedFilm:
        stem = Path(name).stem or f"{self.split or Path(self.place).stem}-{row}"
        return PackedFilm(rows=self.rows, column=self.image, row=row, place=self.place, stem=stem)

    def table_rows(self) -> list[TableRow]:
        """The rows with all values as texts, numbers of classes by their names, and the film under `file_name`."""
        kept = [name for name in self.rows.columns if name != self.image]
        try:
            columns = {name: [_text(v, self.features.get(name)) for v in self.rows.column(name)] for name in kept}
        except ValueError as error:
            raise NoHubFolderError(f"{error} in {self.place}") from error
        split = {"split": self.split} if self.split and "split" not in kept else {}
        return [
            TableRow(row + 1, {**split, **{name: values[row] for name, values in columns.items()}, FILE: str(film)})
            for row, film in enumerate(self.films)
        ]


def hub_shards(marker: Path) -> list[Shard]:
    """The Arrow files of a saved data set or of a dictionary of them, in their order.

    Args:
        marker: its `state.json` or `dataset_dict.json`, or the `README.md` of the hub's snapshot.

    Raises:
        NoHubFolderError: a file is missing, leads out of the folder, or is not what it should be.
    """
    root = marker.parent
    if marker.name == README:
        return [_parquet_shard(path, root, split, noted) for split, path, noted in snapshot_files(marker)]
    if marker.name == STATE:
        return _shards(root, root, "")
    splits = _read(marker, root).get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(split, str) and split for split in splits):
        raise NoHubFolderError(f"no list of splits in {DICTIONARY}")
    return [shard for split in splits for shard in _shards(root / split, root, split)]


def read_hub_rows(marker: Path, ledger: Ledger) -> list[TableRow]:
    """All rows of a saved data set, of a dictionary of them, or of a snapshot, with all values as texts.

    Raises:
        CollectionError: the folder is not what `save_to_disk` writes or the hub has, or it has no images.
    """
    try:
        rows = [row.values for shard in hub_shards(marker) for row in shard.table_rows()]
        return [TableRow(number, values) for number, values in enumerate(rows, start=1)]
    except NoHubFolderError as error:
        what, remedy = (OF_HUB, FETCHED) if marker.name == README else (OF_DISK, SAVED)
        rule = f"`{marker.name}` must be of {what}, with one column of images"
        ledger.refuse(rule, str(error), remedy, file=marker.name)
        ledger.stop()
        raise  # not reached: there is a problem


def packed_films(marker: Path) -> dict[str, list[PackedFilm]]:
    """The films whose bytes the data set holds, by the names that its rows have for them."""
    films = (film for shard in hub_shards(marker) for film in shard.films)
    return {str(film): [film] for film in films if isinstance(film, PackedFilm)}


def _shards(folder: Path, root: Path, split: str) -> list[Shard]:
    state, info = _read(folder / STATE, root), _read(folder / INFO, root)
    features = info.get("features")
    files = _file_names(state.get("_data_files"))
    if state.get("_indices_data_files"):
        raise NoHubFolderError(
            f"rows that are chosen by other files, as early versions wrote them, in {shown(folder, root)}"
        )
    if not isinstance(features, dict) or not files:
        raise NoHubFolderError(f"no features or no files in {shown(folder, root)}")
    return [
        Shard(place=shown(folder / name, root), split=split, features=features, rows=_rows(folder / name, root))
        for name in files
    ]


def _file_names(files: object) -> list[str]:
    """Those of a list of records; empty where a record has none."""
    records = files if isinstance(files, list) else []
    return [str(record.get("filename", "")) if isinstance(record, dict) else "" for record in records]


def _parquet_shard(path: Path, root: Path, split: str, noted: Features) -> Shard:
    _require_inside(path, root)
    try:
        rows = ParquetRows(path)
    except ValueError as error:
        raise NoHubFolderError(f"{error} in {shown(path, root)}") from error
    features = {**rows.features, **noted}
    return Shard(place=shown(path, root), split=split, features=features, rows=rows)


def _rows(path: Path, root: Path) -> ArrowRows:
    _require_inside(path, root)
    try:
        return ArrowRows(path)
    except ValueError as error:
        raise NoHubFolderError(f"{error} in {shown(path, root)}") from error


def _read(path: Path, root: Path) -> dict[str, Any]:
    _require_inside(path, root)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise NoHubFolderError(f"{error} in {shown(path, root)}") from error
    if not isinstance(content, dict):
        raise NoHubFolderError(f"no JSON object in {shown(path, root)}")
    return content


def _require_inside(path: Path, root: Path) -> None:
    if Inside(root).leads_out(path) or not path.is_file():
        raise NoHubFolderError(f"no {path.name} in {shown(path.parent, root)}")


def _kind(feature: object) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, Mapping) else ""


def _text(value: object, feature: object) -> str:
    """A value as tables write it: several by `|`, classes by their names, what is not known by nothing."""
    if value is None or value != value:  # a number that is none
        return ""
    if isinstance(value, list | tuple):
        return "|".join(_text(item, _of_each(feature)) for item in value)
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(names, Sequence) and isinstance(value, int):
        return str(names[value]) if 0 <= value < len(names) else ""
    return str(value).strip()


def _of_each(feature: object) -> object:
    """What the values of a list are: `Sequence` or `List` of a feature, or a list of one."""
    if isinstance(feature, Sequence) and feature:
        return feature[0]
    return feature.get("feature") if isinstance(feature, Mapping) else None
