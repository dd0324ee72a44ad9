"""Data sets that Hugging Face's `datasets` saved to disk: the same films as from a folder of files, or a named refusal.

The layout is written here by pyarrow, as datasets 5.2 writes it; nothing of that library is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_ins import folder

from trainables.datasets.base import SPLITS, ImageTextSample, SourceOptions
from trainables.datasets.film_files import PackedFilm
from trainables.datasets.folder import FolderSource
from trainables.datasets.hub_folder import hub_shards
from trainables.datasets.hub_snapshot import NoHubFolderError
from trainables.datasets.problems import CollectionError
from trainables.datasets.rules import LabelRules

Rows = list[dict[str, Any]]
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
FEATURES = {
    "image": {"_type": "Image"},
    "patient_id": {"dtype": "int64", "_type": "Value"},
    "labels": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "text": {"dtype": "string", "_type": "Value"},
    "view": {"dtype": "string", "_type": "Value"},
    "age": {"dtype": "float64", "_type": "Value"},
}


def save_to_disk(root: Path, rows: Rows, *, num_shards: int = 1, features: dict[str, Any] = FEATURES) -> Path:
    root.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{num_shards:05d}.arrow" for number in range(num_shards)]
    for name, part in zip(names, np.array_split(np.arange(len(rows)), num_shards), strict=True):
        of_image = {name: IMAGE for name in features if features[name]["_type"] == "Image"}
        columns = {
            key: pa.array([rows[row].get(key) for row in part], of_image.get(key)) for key in features if key in rows[0]
        }
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        with pa.OSFile(str(root / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=37)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "ab", "_split": "train"}
    (root / "state.json").write_text(json.dumps(state))
    (root / "dataset_info.json").write_text(json.dumps({"features": features, "citation": "", "license": ""}))
    return root


def rows_of(films: Path, *, with_bytes: bool = True) -> Rows:
    """The rows of the stand-in of a folder, each with its film."""
    rows = [json.loads(line) for line in (films / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        content = (films / row["file_name"]).read_bytes() if with_bytes else None
        row["image"] = {"bytes": content, "path": Path(row["file_name"]).name if with_bytes else row["file_name"]}
    return rows


def without_split(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if name not in ("split", "file_name")} for row in rows]


def samples(root: Path, **options: Any) -> list[tuple[str, ImageTextSample]]:
    source = FolderSource.create(SourceOptions(root=root, conditions=("No Finding",), **options))
    return [(split, sample) for split in SPLITS for sample in source.samples(split)]


def assert_same(ours: Sequence[tuple[str, ImageTextSample]], others: Sequence[tuple[str, ImageTextSample]]) -> None:
    assert len(ours) == len(others) == 150
    for (split, sample), (other_split, other) in zip(ours, others, strict=True):
        assert split == other_split and np.array_equal(sample.image, other.image)
        assert replace(sample, image=other.image) == other


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    folder(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("num_shards", [1, 3])
def test_films_are_those_of_the_same_rows_with_files(tmp_path: Path, films: Path, num_shards: int) -> None:
    saved = save_to_disk(tmp_path / "saved", without_split(rows_of(films)), num_shards=num_shards)
    assert_same(samples(saved, caption="text"), samples(films, caption="text"))


@pytest.mark.slow
def test_numbers_of_classes_are_read_by_their_names(tmp_path: Path, films: Path) -> None:
    rows = without_split(rows_of(films))
    names = sorted({label for row in rows for label in row["labels"]})
    for row in rows:
        row["labels"] = [names.index(label) for label in row["labels"]]
    for each in ({"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}, {"_type": "Sequence"}):
        features = FEATURES | {"labels": {"feature": {"names": names, "_type": "ClassLabel"}, **each}}
        assert_same(samples(save_to_disk(tmp_path / each["_type"], rows, features=features)), samples(films))


@pytest.mark.slow
def test_films_without_bytes_are_read_from_the_path_that_they_name(tmp_path: Path, films: Path) -> None:
    saved = save_to_disk(tmp_path / "saved", without_split(rows_of(films, with_bytes=False)))
    (films / "films").rename(saved / "films")
    try:
        ours = samples(saved)
    finally:
        (saved / "films").rename(films / "films")
    assert_same(ours, samples(films))


def dictionary(root: Path, films: Path) -> Path:
    rows, names = rows_of(films), ("train", "val", "test")
    for name in names:
        save_to_disk(root / name, without_split([row for row in rows if row["split"] == name]))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    return root


@pytest.mark.slow
def test_the_splits_of_a_dictionary_are_the_collections_own(tmp_path: Path, films: Path) -> None:
    options = {"rules": LabelRules(split="own")}
    assert_same(samples(dictionary(tmp_path / "saved", films), **options), samples(films, **options))


def test_a_data_set_alone_has_no_split_of_its_own(tmp_path: Path, films: Path) -> None:
    saved = save_to_disk(tmp_path / "saved", without_split(rows_of(films)))
    with pytest.raises(CollectionError, match=r"`state\.json` must have rows with .*split, but got no split among"):
        samples(saved, rules=LabelRules(split="own"))


def test_a_film_that_cannot_be_read_is_named_by_its_row(tmp_path: Path, films: Path) -> None:
    rows = without_split(rows_of(films))
    rows[70]["image"]["bytes"] = rows[70]["image"]["bytes"][:200]
    saved = save_to_disk(tmp_path / "saved", rows, num_shards=2)
    source = FolderSource.create(SourceOptions(root=saved, conditions=("No Finding",)))
    (said,) = [sentence for sentence in source.said if "rejected" in sentence]
    assert "data-00000-of-00002.arrow, row 71 (" in said


def emptied(name: str) -> Callable[[Path], object]:
    return lambda saved: (saved / name).write_bytes(b"")


def changed(name: str, **values: Any) -> Callable[[Path], object]:
    """A file of the layout with other values."""
    return lambda saved: (saved / name).write_text(json.dumps(json.loads((saved / name).read_text()) | values))


def linked_out(saved: Path) -> None:
    (saved / SHARD).rename(saved.parent / "secret.arrow")
    (saved / SHARD).symlink_to(saved.parent / "secret.arrow")


SHARD = "data-00000-of-00001.arrow"
SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (emptied("state.json"), r"Expecting value.* in state\.json"),
    (emptied("dataset_info.json"), r"Expecting value.* in dataset_info\.json"),
    (lambda saved: (saved / "dataset_info.json").unlink(), r"no dataset_info\.json in \."),
    (lambda saved: (saved / "state.json").write_text("[]"), r"no JSON object in state\.json"),
    (changed("state.json", _data_files=[]), r"no features or no files in \."),
    (changed("state.json", _data_files=3), r"no features or no files in \."),
    (changed("state.json", _data_files=[{"filename": "gone.arrow"}]), r"no gone\.arrow in \."),
    (changed("state.json", _data_files=[{"name": "gone.arrow"}]), r"but got no "),
    (changed("state.json", _data_files=[{"filename": "../secret.arrow"}]), r"no secret\.arrow in"),
    (changed("state.json", _data_files=[{"filename": "/etc/hostname"}]), r"no hostname in /etc"),
    (
        changed("state.json", _indices_data_files=[{"filename": "indices.arrow"}]),
        r"rows that are chosen by other files",
    ),
    (changed("dataset_info.json", features={"a": {"_type": "Value"}}), rf"none in {SHARD}"),
    (changed("dataset_info.json", features={"a": {"_type": "Image"}, "b": {"_type": "Image"}}), rf"a, b in {SHARD}"),
    (changed("dataset_info.json", features={"age": {"_type": "Image"}}), rf"no field path in column age in {SHARD}"),
    (emptied(SHARD), rf"in {SHARD}"),
    (lambda saved: (saved / SHARD).write_bytes((saved / SHARD).read_bytes()[:5000]), rf"in {SHARD}"),
    (linked_out, rf"no {SHARD} in \."),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT)
def test_layouts_that_are_none_are_refused(
    tmp_path: Path, films: Path, spoil: Callable[[Path], object], message: str
) -> None:
    saved = save_to_disk(tmp_path / "saved", without_split(rows_of(films))[:6])
    spoil(saved)
    rule = r"`state\.json` must be of a data set that `save_to_disk` wrote, with one column of images, (?=but got).*"
    with pytest.raises(CollectionError, match=rule + message):
        samples(saved)


@pytest.mark.parametrize("splits", ["train", [], ["../saved"], [1], ["train", "gone"]])
def test_dictionaries_that_are_none_are_refused(tmp_path: Path, films: Path, splits: object) -> None:
    saved = dictionary(tmp_path / "root" / "saved", films)
    (saved.parent / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(CollectionError, match=r"`dataset_dict\.json` must be of a data set that `save_to_disk` wrote"):
        samples(saved)


def test_rows_without_patients_are_refused(tmp_path: Path, films: Path) -> None:
    rows = [
        {name: value for name, value in row.items() if name != "patient_id"} for row in without_split(rows_of(films))
    ]
    with pytest.raises(CollectionError, match=r"must have rows with .*patient_id.*, but got no patient_id among"):
        samples(save_to_disk(tmp_path / "saved", rows))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, films: Path) -> tuple[Path, bytes]:
    saved = save_to_disk(tmp_path_factory.mktemp("small") / "saved", without_split(rows_of(films))[:3])
    return saved, (saved / SHARD).read_bytes()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_at_any_byte_is_a_named_error_or_a_value(
    small: tuple[Path, bytes], damage: list[tuple[float, int]]
) -> None:
    saved, whole = small
    content = bytearray(whole)
    for place, byte in damage:
        content[int(place * len(content))] = byte
    (saved / SHARD).write_bytes(content)
    try:
        for shard in hub_shards(saved / "state.json"):
            for row, film in zip(shard.table_rows(), shard.films, strict=True):
                assert all(isinstance(value, str) for value in row.values.values())
                assert not isinstance(film, PackedFilm) or isinstance(film.read_bytes(), bytes)
    except NoHubFolderError as error:
        assert str(error)
