"""Data sets as the hub has them: the same films as from a folder of files, or a named refusal.

The layout is written here by pyarrow, as the hub's documentation has it; nothing of the library `datasets` is needed.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_ins import folder
from test_hub_folder import FEATURES, IMAGE, Rows, assert_same, rows_of, samples, without_split

from trainables.datasets.film_files import PackedFilm
from trainables.datasets.hub_folder import hub_shards
from trainables.datasets.hub_snapshot import NoHubFolderError
from trainables.datasets.packed_rows import NUM_GROUPS, ParquetRows, _records
from trainables.datasets.parallel import in_order
from trainables.datasets.problems import CollectionError
from trainables.datasets.rules import LabelRules

FILES = {"train": "data/train-*", "val": "data/val-*", "test": "data/test-*"}
CONFIGS = {
    "configs": [
        {"config_name": "default", "data_files": [{"split": name, "path": path} for name, path in FILES.items()]}
    ]
}
OWN = LabelRules(split="own")


def readme(root: Path, head: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "README.md").write_text(f"---\n{json.dumps(head)}\n---\n# Films\n")  # JSON is YAML
    return root


def write_parquet(path: Path, rows: Rows, features: dict[str, Any] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in rows], IMAGE if name == "image" else None) for name in rows[0]}
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=17)


def snapshot(
    root: Path, films: Path, head: object, *, num_shards: int = 2, features: dict[str, Any] | None = FEATURES
) -> Path:
    rows = rows_of(films)
    for split in FILES:
        members = [row for row in rows if row["split"] == split]
        for number, part in enumerate(np.array_split(np.arange(len(members)), num_shards)):
            path = root / "data" / f"{split}-{number:05d}-of-{num_shards:05d}.parquet"
            write_parquet(path, without_split([members[row] for row in part]), features)
    return readme(root, head)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    folder(root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("head", [CONFIGS, {}, {"license": "mit"}, {"configs": [{"data_files": FILES}]}])
@pytest.mark.parametrize("features", [FEATURES, None])
def test_films_are_those_of_the_same_rows_with_files(
    tmp_path: Path, films: Path, head: object, features: dict[str, Any] | None
) -> None:
    made = snapshot(tmp_path / "made", films, head, features=features)
    assert_same(samples(made, caption="text", rules=OWN), samples(films, caption="text", rules=OWN))


@pytest.mark.slow
def test_one_file_without_a_split_is_split_by_patient(tmp_path: Path, films: Path) -> None:
    write_parquet(tmp_path / "made" / "films.parquet", without_split(rows_of(films)), FEATURES)
    made = readme(tmp_path / "made", {})
    assert_same(samples(made), samples(films))
    with pytest.raises(CollectionError, match=r"`README\.md` must have rows with .*split, but got no split among"):
        samples(made, rules=OWN)


@pytest.mark.slow
def test_classes_are_named_by_the_readme_where_files_do_not(tmp_path: Path, films: Path) -> None:
    rows = without_split(rows_of(films))
    names = sorted({label for row in rows for label in row["labels"]})
    for row in rows:
        row["labels"] = [names.index(label) for label in row["labels"]]
    write_parquet(tmp_path / "made" / "films.parquet", rows, None)
    classes = {"class_label": {"names": {str(number): name for number, name in enumerate(names)}}}
    columns = [{"name": "image", "dtype": "image"}, {"name": "labels", "sequence": classes}]
    assert_same(samples(readme(tmp_path / "made", {"dataset_info": {"features": columns}})), samples(films))


@pytest.mark.slow
def test_the_configuration_that_is_marked_is_read(tmp_path: Path, films: Path) -> None:
    other = {"config_name": "other", "data_files": "gone.parquet"}
    marked = {**CONFIGS["configs"][0], "config_name": "all", "default": True}
    made = snapshot(tmp_path / "made", films, {"configs": [other, marked]})
    assert len(samples(made, rules=OWN)) == 150


def test_films_are_the_same_after_they_were_sent_elsewhere(tmp_path: Path, films: Path) -> None:
    made = snapshot(tmp_path / "made", films, CONFIGS)
    packed = [film for shard in hub_shards(made / "README.md") for film in shard.films]
    sent = pickle.loads(pickle.dumps(packed))
    assert len(sent) == 150
    for film, copy in zip(packed, sent, strict=True):
        assert isinstance(film, PackedFilm) and film.read_bytes() == copy.read_bytes() and str(film) == str(copy)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"configs": [{"config_name": "a"}, {"config_name": "b"}]}, "several configurations, a, b, of which none"),
    ({"configs": [{"data_files": "data/gone-*"}]}, r"no file \./data/gone-\*"),
    ({"configs": [{"data_files": "../secret.parquet"}]}, r"no secret\.parquet in"),
    ({"configs": [{"data_files": "/etc/host*"}]}, "no file"),
    ({"configs": [{"data_files": "README.md"}]}, r"README\.md where Parquet files must be"),
    ({"configs": [{"data_files": "data/linked.parquet"}]}, r"no linked\.parquet in"),
    ({"configs": [{"data_files": "data/cut.parquet"}]}, r"in data/cut\.parquet"),
    ({"configs": [{"data_files": "data/none.parquet"}]}, r"none in data/none\.parquet"),
]


@pytest.mark.parametrize(("head", "message"), REFUSED)
def test_layouts_that_are_none_are_refused(tmp_path: Path, films: Path, head: dict[str, Any], message: str) -> None:
    rows = without_split(rows_of(films))[:6]
    data = tmp_path / "made" / "data"
    write_parquet(tmp_path / "secret.parquet", rows, FEATURES)
    write_parquet(data / "none.parquet", [{"patient_id": 3}], None)
    (data / "linked.parquet").symlink_to(tmp_path / "secret.parquet")
    (data / "cut.parquet").write_bytes((tmp_path / "secret.parquet").read_bytes()[:-40])
    rule = r"`README\.md` must be of a data set of the hub in Parquet files, with one column of images, (?=but got).*"
    with pytest.raises(CollectionError, match=rule + message):
        samples(readme(tmp_path / "made", head))


def test_a_head_that_is_no_yaml_is_refused(tmp_path: Path, films: Path) -> None:
    write_parquet(tmp_path / "films.parquet", without_split(rows_of(films))[:6], FEATURES)
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(CollectionError, match=r"but got .* in README\.md"):
        samples(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, films: Path) -> tuple[Path, bytes]:
    root = readme(tmp_path_factory.mktemp("small"), {})
    write_parquet(root / "films.parquet", without_split(rows_of(films))[:3], FEATURES)
    return root, (root / "films.parquet").read_bytes()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_at_any_byte_is_a_named_error_or_a_value(
    small: tuple[Path, bytes], damage: list[tuple[float, int]]
) -> None:
    root, whole = small
    content = bytearray(whole)
    for place, byte in damage:
        content[int(place * len(content))] = byte
    (root / "films.parquet").write_bytes(content)
    try:
        for shard in hub_shards(root / "README.md"):
            for row, film in zip(shard.table_rows(), shard.films, strict=True):
                assert all(isinstance(value, str) for value in row.values.values())
                assert not isinstance(film, PackedFilm) or isinstance(film.read_bytes(), bytes)
    except (NoHubFolderError, ValueError) as error:
        assert str(error)


def test_rows_come_from_their_group_and_any_thread(tmp_path: Path, films: Path) -> None:
    rows = without_split(rows_of(films))
    write_parquet(tmp_path / "films.parquet", rows, FEATURES)
    parquet = ParquetRows(tmp_path / "films.parquet")
    order = np.random.default_rng(0).permutation(len(rows))
    assert all(parquet.bytes_of("image", int(row)) == rows[row]["image"]["bytes"] for row in order)


NUM_SHARDS, FILM_BYTES = 12, 2**18


@pytest.fixture
def shards(tmp_path: Path) -> list[ParquetRows]:
    """Files of two groups of a row each."""
    chance = np.random.default_rng(0)
    for number in range(NUM_SHARDS):
        rows = [{"image": {"bytes": chance.bytes(FILM_BYTES), "path": ""}} for _ in range(2)]
        columns = {"image": pa.array([row["image"] for row in rows], IMAGE)}
        pq.write_table(pa.table(columns), tmp_path / f"{number:02d}.parquet", row_group_size=1)
    return [ParquetRows(path) for path in sorted(tmp_path.glob("*.parquet"))]


def test_many_files_leave_none_open_and_few_groups_in_memory(shards: list[ParquetRows]) -> None:
    """Arrow's buffers are less than three times as large as what they hold."""
    _records.cache_clear()
    before = pa.total_allocated_bytes()
    films = {rows.bytes_of("image", row) for rows in shards for row in range(2)}
    assert len(films) == 2 * NUM_SHARDS and all(rows.is_filled("image", "bytes") == [True, True] for rows in shards)
    assert pa.total_allocated_bytes() - before < 3 * NUM_GROUPS * FILM_BYTES
    paths = {str(rows.path) for rows in shards}
    assert paths.isdisjoint(os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())


def test_films_in_their_order_unpack_each_group_once(tmp_path: Path, films: Path) -> None:
    rows = without_split(rows_of(films))
    write_parquet(tmp_path / "films.parquet", rows, FEATURES)
    parquet, before = ParquetRows(tmp_path / "films.parquet"), _records.cache_info().misses
    contents = list(in_order(lambda row: parquet.bytes_of("image", row), range(len(rows))))
    assert contents == [row["image"]["bytes"] for row in rows]
    assert _records.cache_info().misses - before == -(-len(rows) // 17)


def test_a_file_that_becomes_another_is_told(shards: list[ParquetRows]) -> None:
    first, second = shards[:2]
    first.bytes_of("image", 0)
    second.path.replace(first.path)
    with pytest.raises(ValueError, match="changed while it was read"):
        first.bytes_of("image", 1)
    with pytest.raises(ValueError, match=r"No such file|Failed to open"):
        second.bytes_of("image", 1)
