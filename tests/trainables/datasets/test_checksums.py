"""Caches and data sets that check themselves: damage at any byte shows when its part is read, and not before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trainables.datasets import checksums
from trainables.datasets.checksums import DamagedError, MappedFile, set_aside, sums_of, write_checksums
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.tensors import TensorCache
from trainables.datasets.writing import write_dataset

VALUES = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
ROW = 128


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "PART_BYTES", 512)
    monkeypatch.setattr("os.fsync", lambda handle: None)  # it takes most of the time, and nothing here dies


@pytest.fixture
def cache(tmp_path: Path) -> TensorCache:
    made = TensorCache(tmp_path)
    made.get_or_create("k", "states", lambda: {"states": VALUES})
    return made


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(bytes(data))


def opened(cache: TensorCache) -> checksums.CheckedArray:
    return cache.get_or_create("k", "states", lambda: pytest.fail("was there"))["states"]


def start_of(cache: TensorCache) -> int:
    """Where the values begin in the file."""
    return cache.path("k", "states").read_bytes().index(VALUES.tobytes())


@pytest.mark.parametrize("row", [17, 40])
def test_damage_shows_in_the_rows_of_its_part_alone(cache: TensorCache, row: int) -> None:
    path, start = cache.path("k", "states"), start_of(cache)
    flip(path, start + row * ROW + 5)
    hit = {
        r
        for r in range(64)
        if (start + r * ROW) // 512 <= (start + row * ROW + 5) // 512 <= (start + r * ROW + ROW - 1) // 512
    }
    for place in set(range(64)) - hit - rows_of_edges(start):
        assert np.array_equal(opened(cache)[place], VALUES[place])
    for place in sorted(hit - rows_of_edges(start))[:1]:
        with pytest.raises(DamagedError, match="must hold what was written to it, but got other bytes from byte"):
            opened(cache)[place]
        assert not path.exists() and path.with_name("k.arrow.bad-1").exists()


def rows_of_edges(start: int) -> set[int]:
    """Rows that share a part with the file's own head or foot, which are checked when it is opened."""
    end = start + VALUES.nbytes
    return {
        r for r in range(64) if (start + r * ROW) // 512 <= start // 512 or (start + r * ROW + ROW) // 512 >= end // 512
    }


def test_what_is_damaged_is_set_aside_said_and_made_again(cache: TensorCache, caplog: pytest.LogCaptureFixture) -> None:
    path = cache.path("k", "states")
    flip(path, start_of(cache) + 30 * ROW)
    with caplog.at_level(logging.WARNING), pytest.raises(DamagedError):
        opened(cache)[np.array([2, 30])]
    assert "is damaged; it is kept as k.arrow.bad-1 and made again" in caplog.text
    made = cache.get_or_create("k", "states", lambda: {"states": VALUES})["states"]
    assert np.array_equal(made[:], VALUES) and np.array_equal(made[np.array([5, 3])], VALUES[[5, 3]])


@pytest.mark.slow
def test_damage_at_any_byte_is_never_read_as_values(cache: TensorCache) -> None:
    """Head, names, shapes and foot of the file too: what is opened either has the values or is made anew."""
    path = cache.path("k", "states")
    good, sums = path.read_bytes(), sums_of(path).read_bytes()
    for place in range(0, len(good), 101):
        path.write_bytes(good)
        sums_of(path).write_bytes(sums)
        flip(path, place)
        again: list[int] = []
        made = cache.get_or_create("k", "states", lambda again=again: again.append(1) or {"states": VALUES})["states"]
        try:
            assert np.array_equal(made.whole(), VALUES) and again
        except DamagedError:
            assert not again


@pytest.mark.parametrize("content", ["", "{}", '{"bytes": 5, "part_bytes": 512, "crc32": []}', None])
def test_a_file_without_sound_checksums_is_made_again(cache: TensorCache, content: str | None) -> None:
    sums = sums_of(cache.path("k", "states"))
    sums.unlink() if content is None else sums.write_text(content)
    made = cache.get_or_create("k", "states", lambda: {"states": VALUES + 1})["states"]
    assert np.array_equal(made.whole(), VALUES + 1)


def test_a_file_that_was_made_again_by_another_process_is_left_alone(cache: TensorCache) -> None:
    path, mine = cache.path("k", "states"), opened(cache)
    copy = path.read_bytes()
    flip(path, start_of(cache) + 30 * ROW)
    path.rename(path.with_name("aside"))
    path.write_bytes(copy)
    with pytest.raises(DamagedError):
        mine.whole()
    assert path.exists() and np.array_equal(opened(cache).whole(), VALUES)


def test_only_parts_that_are_read_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(bytes(range(256)) * 8)
    write_checksums(tmp_path / "f", lambda file: [file.content])
    really, checked = checksums.zlib.crc32, list[int]()
    monkeypatch.setattr(checksums.zlib, "crc32", lambda part: checked.append(len(part)) or really(part))
    file = MappedFile(tmp_path / "f")
    file.require([(600, 700), (1000, 1030)])
    file.require([(512, 1024)])
    assert checked == [512, 512]
    file.require_all()
    assert checked == [512] * 4 and file.is_checked


@pytest.fixture
def films(tmp_path: Path) -> Iterator[PreparedDataset]:
    yield write_dataset(PhantomSource(num_patients=30, seed=1), tmp_path / "films")


@pytest.mark.slow
def test_a_film_is_checked_when_it_is_read_and_texts_when_the_data_set_is_opened(films: PreparedDataset) -> None:
    path, split = films.folder / "train.arrow", films.split("train")
    first = split.image(5).copy()
    flip(path, path.read_bytes().index(first.tobytes()) + 100)
    damaged = films.split("train")
    with pytest.raises(DamagedError, match=r"train\.arrow` must hold what was written"):
        damaged.image(5)
    assert damaged.image(20).shape == (64, 64) and path.exists()
    with pytest.raises(DamagedError):
        films.require_sound()
    flip(path, path.read_bytes().index(first.tobytes()[:100]) + 100)
    films.require_sound()
    flip(path, path.read_bytes().index(split.prompts[3].encode()))
    with pytest.raises(DamagedError):
        films.split("train")


def test_a_folder_is_set_aside_under_a_name_that_is_free(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "dataset").mkdir()
        set_aside(tmp_path / "dataset")
        assert (tmp_path / f"dataset.bad-{number}").is_dir() and not (tmp_path / "dataset").exists()


@pytest.mark.slow
def test_a_data_set_of_an_earlier_version_is_read_unchecked(films: PreparedDataset) -> None:
    for path in films.folder.glob("*.sums"):
        path.unlink()
    flip(films.folder / "train.arrow", 3000)
    assert len(films.split("train").images([0, 1])) == 2
