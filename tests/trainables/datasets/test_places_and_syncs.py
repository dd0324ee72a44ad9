"""Whether files lie in a folder, and bytes that are brought to the disk while others are made."""

from __future__ import annotations

import os
import threading
from itertools import product
from pathlib import Path

import pytest

from trainables.datasets.files import Inside, synced_behind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with links to files and folders, in it and out of it, one of which leads round in a circle."""
    (tmp_path / "root-too" / "a").mkdir(parents=True)
    (root := tmp_path / "root").mkdir()
    for place in ("root/a/b", "out/b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "film").touch()
    for name, target in {"in": "a", "out": "../out", "b": "a/b", "deep": "a/../../out", "again": "again"}.items():
        (root / name).symlink_to(target)
    (root / "a" / "link").symlink_to("../../out/b/film")
    (root / "a" / "near").symlink_to("b/film")
    return root


def test_a_file_lies_where_its_real_path_says(root: Path) -> None:
    inside, real_root = Inside(root), root.resolve()
    names = ("a", "b", "in", "out", "deep", "again", "link", "near", "film", "..", ".", "root-too", "root")
    told = {}
    for parts in product(names, repeat=3):
        path = Path(os.path.join(root, *parts))  # noqa: PTH118  # pathlib would leave out the dots
        told[path] = inside.leads_out(path)
        assert told[path] != Path(os.path.realpath(path)).is_relative_to(real_root)
        by_name = Path(os.path.normpath(path)).is_relative_to(root) and os.path.normpath(path) != str(root)
        assert inside.has_file(path) == (by_name and path.is_file())
    assert {
        told[root / "out" / "b" / "film"],
        told[root / "in" / "link" / "film"],
        told[root / "a" / "b" / "film"],
    } == {True, False}


def test_bytes_are_on_their_way_to_the_disk_while_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, made = list[int](), threading.Event()

    def slow(handle: int) -> None:
        assert made.wait(60)
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", slow)
    with (tmp_path / "file").open("wb", buffering=0) as file, synced_behind(file) as sync:
        file.write(b"films")
        sync()
        assert not synced
        file.write(b"films")
        made.set()
        for _ in range(2):
            sync()
    assert len(synced) == 3 and synced[-1] == 10


@pytest.mark.parametrize("num_syncs", [1, 2])
def test_a_disk_that_fails_is_told_at_the_next_bytes_or_at_the_end(
    num_syncs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with (
        (tmp_path / "file").open("wb") as file,
        pytest.raises(OSError, match="Input/output error"),
        synced_behind(file) as sync,
    ):
        for number in range(1, num_syncs + 1):
            sync()
            assert number == 1
