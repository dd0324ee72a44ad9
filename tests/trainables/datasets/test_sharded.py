"""Arrays filled in parts: the same values however they are cut, by however many processes, and wherever these died."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections import namedtuple
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from patience import until

from trainables.datasets import sharded
from trainables.datasets.sharded import CacheNotWritableError, Layout, get_or_fill

SHAPE = (53, 3, 2)
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
LAYOUT = Layout(shape=SHAPE, dtype=np.float32, step=4)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sharded, "SHARD_BYTES", 9 * LAYOUT.row_bytes
    )  # room for nine rows is room for two steps of four
    monkeypatch.setattr(sharded, "LOOK_S", 0.01)


class Counted:
    """Gives the values, and keeps which rows it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        self.asked.append((start, stop))
        return VALUES[start:stop]


def test_it_is_cut_at_whole_steps_computed_once_and_read_as_if_it_were_whole(tmp_path: Path) -> None:
    compute = Counted()
    array = get_or_fill(tmp_path, "moments", "k", LAYOUT, compute)
    assert compute.asked == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40), (40, 48), (48, 53)] == LAYOUT.shards()
    assert array.shape == SHAPE and len(array) == 53 and array.size == VALUES.size
    rows = np.random.default_rng(1).integers(0, 53, 40)
    np.testing.assert_array_equal(array[rows], VALUES[rows])
    np.testing.assert_array_equal(array[5:50], VALUES[5:50])
    assert array[np.array([], np.int64)].shape == (0, 3, 2)
    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "k", LAYOUT, compute)[:], VALUES)
    assert len(compute.asked) == 7


@pytest.mark.parametrize("num_rows", [255, 256, 257, 1000, 223_414])
@pytest.mark.parametrize("step", [1, 4, 64])
def test_however_many_rows_there_are_its_files_can_all_be_open(num_rows: int, step: int) -> None:
    """A process may have 1,024, and those of all parts of two arrays are open while a trial trains."""
    shards = Layout(shape=(num_rows, 3, 2), dtype=np.float32, step=step).shards()
    assert len(shards) <= 256 and shards[0][0] == 0 and shards[-1][1] == num_rows
    assert all(stop == start for (_, stop), (start, _) in pairwise(shards)) and not any(
        start % step for start, _ in shards
    )
    lengths = [stop - start for start, stop in shards]
    assert set(lengths[:-1]) <= {lengths[0]} and 0 < lengths[-1] <= lengths[0]


@pytest.mark.parametrize("num_bytes", [1, 10**6])
def test_a_part_holds_a_step_at_least_and_no_more_than_all(num_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "SHARD_BYTES", num_bytes)
    assert LAYOUT.shards() == (
        [(start, min(start + 4, 53)) for start in range(0, 53, 4)] if num_bytes == 1 else [(0, 53)]
    )


def test_what_is_written_is_the_array_and_hardly_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "SHARD_BYTES", 2**20)
    values = np.random.default_rng(0).standard_normal((60, 4, 64, 64)).astype(np.float32)
    layout = Layout(shape=values.shape, dtype=np.float32, step=2)
    get_or_fill(tmp_path, "moments", "k", layout, lambda start, stop: values[start:stop])
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert values.nbytes <= written <= 1.01 * values.nbytes


def test_where_a_process_broke_off_the_next_one_goes_on(tmp_path: Path) -> None:
    def broken(start: int, stop: int) -> NDArray[Any]:
        if start == 24:
            raise ValueError("no more")
        return VALUES[start:stop]

    with pytest.raises(ValueError, match="no more"):
        get_or_fill(tmp_path, "moments", "k", LAYOUT, broken)
    left, written = (tmp_path / "moments" / "k" / f".000000024-000000032.arrow.{name}.partial" for name in ("0f", "1f"))
    for file in (left, written):
        file.write_bytes(b"torn")
    os.utime(
        left, (0, time.time() - 3700)
    )  # as a kill leaves it; another machine, whose lock is not seen here, writes on
    compute = Counted()
    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "k", LAYOUT, compute)[:], VALUES)
    assert compute.asked == [(24, 32), (32, 40), (40, 48), (48, 53)]
    assert not left.exists() and written.read_bytes() == b"torn"


def test_a_part_that_another_process_makes_is_left_to_it_and_waited_for(tmp_path: Path) -> None:
    compute, folder = Counted(), tmp_path / "moments" / "k"
    folder.mkdir(parents=True)
    theirs = FileLock(folder / "000000000-000000008.lock")
    theirs.acquire()

    def fill(start: int, stop: int) -> NDArray[Any]:
        if start == 48:  # all others are done: the other process gives up, and its part is made here
            theirs.release()
        return compute(start, stop)

    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "k", LAYOUT, fill)[:], VALUES)
    assert [start for start, _ in compute.asked] == [8, 16, 24, 32, 40, 48, 0]


def test_damage_costs_its_part_alone(tmp_path: Path) -> None:
    array = get_or_fill(tmp_path, "moments", "k", LAYOUT, Counted())
    path = tmp_path / "moments" / "k" / "000000016-000000024.arrow"
    data = bytearray(path.read_bytes())
    data[data.index(VALUES[16:24].tobytes()) + 5] ^= 0x10
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(array[:16], VALUES[:16])
    compute = Counted()
    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "k", LAYOUT, compute)[:], VALUES)
    assert compute.asked == [(16, 24)]


def test_a_disk_without_room_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_or_fill(tmp_path, "moments", "k", LAYOUT, Counted())
    (tmp_path / "moments" / "k" / "000000048-000000053.arrow").unlink()
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(5 * LAYOUT.row_bytes - 1))
    with pytest.raises(OSError, match=r"`moments` need 0\.000 GB.*cache\.path") as full:
        get_or_fill(tmp_path, "moments", "k", LAYOUT, lambda *_: pytest.fail("was computed"))
    assert full.value.errno == errno.ENOSPC
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(5 * LAYOUT.row_bytes))
    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "k", LAYOUT, Counted())[:], VALUES)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_this_machine_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The one that chose it may: a share is written there, and only read here. What another filled is used all the same."""
    get_or_fill(tmp_path, "moments", "there", LAYOUT, Counted())
    open_file = os.open

    def refused(path: Any, flags: int, *mode: Any, **of: Any) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY and str(path).startswith(str(tmp_path)):
            raise OSError(code, os.strerror(code), str(path))
        return open_file(path, flags, *mode, **of)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(
        CacheNotWritableError, match=rf"`cache\.path` must .* but got {os.strerror(code)} at '{tmp_path}"
    ):
        get_or_fill(tmp_path, "moments", "k", LAYOUT, lambda *_: pytest.fail("was computed"))
    monkeypatch.setattr(Path, "mkdir", lambda path, **of: refused(path.parents[2], os.O_RDWR))
    with pytest.raises(CacheNotWritableError):
        get_or_fill(tmp_path / "new" / "cache", "moments", "k", LAYOUT, lambda *_: pytest.fail("was computed"))
    np.testing.assert_array_equal(get_or_fill(tmp_path, "moments", "there", LAYOUT, Counted())[:], VALUES)
    monkeypatch.undo()

    def unreadable(start: int, stop: int) -> NDArray[Any]:
        raise OSError(code, os.strerror(code), "/films")

    with pytest.raises(OSError, match="/films"):
        get_or_fill(tmp_path, "moments", "k", LAYOUT, unreadable)


def _fill(folder: Path, asked: Path, num_processes: int) -> float:
    """Fill a cache; a part is done once so many processes have begun one, and that of a process which is to be killed never."""
    sharded.SHARD_BYTES, sharded.LOOK_S = 9 * LAYOUT.row_bytes, 0.01  # type: ignore[misc]

    def compute(start: int, stop: int) -> NDArray[Any]:
        if not num_processes:
            time.sleep(300)
        with asked.open("a") as file:
            file.write(f"{os.getpid()} {start}\n")
        until(lambda: len({line.split()[0] for line in asked.read_text().splitlines()}) == num_processes)
        return VALUES[start:stop]

    return float(get_or_fill(folder, "moments", "k", LAYOUT, compute)[:].sum())


@pytest.mark.slow
def test_processes_share_the_work_and_one_that_is_killed_costs_its_part(tmp_path: Path) -> None:
    context, asked = get_context("fork"), tmp_path / "asked"
    killed = context.Process(target=_fill, args=(tmp_path / "cache", asked, 0))
    killed.start()
    until(lambda: list((tmp_path / "cache").rglob("*.lock")))
    with context.Pool(2) as pool:
        sums = pool.starmap_async(_fill, [(tmp_path / "cache", asked, 2)] * 2, chunksize=1)
        time.sleep(0.3)
        assert killed.pid is not None and not sums.ready()  # they wait for the part that it has
        os.kill(killed.pid, signal.SIGKILL)
        killed.join()
        assert sums.get(300) == [float(VALUES.sum())] * 2
    lines = [line.split() for line in asked.read_text().splitlines()]
    assert sorted(int(start) for _, start in lines) == [0, 8, 16, 24, 32, 40, 48]
    assert len({process for process, _ in lines}) == 2
