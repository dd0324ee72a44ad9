"""Feature cache: mapped, shared, checked, whole or absent."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from analysis.features import CacheWriteError, FeatureCache, FeatureKey

KEY = FeatureKey(
    data="d" * 16, extractor="mini", weights_hash="w" * 16, preprocessing="grey", dtype="float32", count=50
)


def _features(seed: int = 0, count: int = 50) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 7)).astype(np.float32)


def _refuse() -> NDArray[Any]:
    raise AssertionError("computed although the cache has it")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_second_look_is_the_same_and_not_computed(tmp_path: Path) -> None:
    first = FeatureCache(tmp_path).get_or_compute(KEY, _features)
    second = FeatureCache(tmp_path).get_or_compute(KEY, _refuse)
    assert np.array_equal(first, _features())
    assert np.array_equal(second, _features())
    assert (second.dtype, second.shape) == (np.float32, (50, 7))
    assert _files(tmp_path) == [KEY.file_name]


def test_features_are_mapped_and_not_copied(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    before = pa.total_allocated_bytes()
    features = cache.get_or_compute(KEY, _features)
    assert not features.flags.writeable
    assert not features.flags.owndata
    assert pa.total_allocated_bytes() - before < features.nbytes
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert KEY.file_name in mapped.read_text()


@pytest.mark.parametrize(
    "change", [{"data": "e"}, {"extractor": "xrv"}, {"weights_hash": "x"}, {"preprocessing": "rgb"}, {"count": 49}]
)
def test_every_part_of_the_key_counts(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = FeatureCache(tmp_path)
    cache.get_or_compute(KEY, _features)
    other = replace(KEY, **change)
    assert cache.get(other) is None
    computed = cache.get_or_compute(other, lambda: _features(1, other.count))
    assert np.array_equal(computed, _features(1, other.count))
    assert np.array_equal(cache.get_or_compute(KEY, _refuse), _features())


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_keep_their_bits(tmp_path: Path, dtype: str) -> None:
    key = replace(KEY, dtype=dtype)
    stored = FeatureCache(tmp_path).get_or_compute(key, lambda: _features().astype(dtype))
    assert stored.dtype == dtype
    assert np.array_equal(stored, _features().astype(dtype))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = bytes(content).index(_features().tobytes()[:32])
    content[position] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_another_key(path: Path) -> None:
    other = replace(KEY, data="other")
    FeatureCache(path.parent).get_or_compute(other, lambda: _features(3))
    (path.parent / other.file_name).replace(path)


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, _empty, _of_another_key])
def test_a_damaged_file_is_noticed_and_computed_again(tmp_path: Path, damage: Any, caplog: Any) -> None:
    cache = FeatureCache(tmp_path)
    cache.get_or_compute(KEY, _features)
    damage(cache.path(KEY))
    assert np.array_equal(cache.get_or_compute(KEY, _features), _features())
    assert "computed again" in caplog.text and cache.path(KEY).with_name(f"{KEY.file_name}.bad-1").exists()
    assert np.array_equal(cache.get_or_compute(KEY, _refuse), _features())


@pytest.mark.parametrize("wrong", [_features(0, 49), _features().astype(np.float64), _features()[0]])
def test_features_that_do_not_match_the_key_are_refused(tmp_path: Path, wrong: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"`compute` must give float32\[50, d\], but got"):
        FeatureCache(tmp_path).get_or_compute(KEY, lambda: wrong)
    assert _files(tmp_path) == []


def test_a_failing_computation_leaves_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with pytest.raises(AssertionError, match="although"):
        cache.get_or_compute(KEY, _refuse)
    assert _files(tmp_path) == []
    assert np.array_equal(cache.get_or_compute(KEY, _features), _features())


def test_leftovers_of_a_killed_process_are_removed_and_what_another_machine_writes_is_not(tmp_path: Path) -> None:
    """Whose lock may not be seen here."""
    old, young = (tmp_path / f".{KEY.file_name}.{name}.tmp" for name in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, time.time() - 3700))
    FeatureCache(tmp_path).get_or_compute(KEY, _features)
    assert not old.exists() and young.read_bytes() == b"half"


def _work(folder: Path, barrier: Any, results: Any) -> None:
    """What one of two processes does; slow enough that both are at it together."""

    def compute() -> NDArray[np.float32]:
        with (folder / "computed.log").open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return _features()

    barrier.wait()
    results.put(FeatureCache(folder / "cache").get_or_compute(KEY, compute).tobytes())


@pytest.mark.slow
def test_two_processes_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    contents = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join(timeout=300)
    assert contents == [_features().tobytes()] * 2
    assert (tmp_path / "computed.log").read_text() == "x"


def _work_on_a_full_disk(folder: Path, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
    try:
        FeatureCache(folder).get_or_compute(KEY, _features)
    except CacheWriteError as error:
        results.put(str(error))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    worker = context.Process(target=_work_on_a_full_disk, args=(tmp_path, results))
    worker.start()
    message = results.get(timeout=300)
    worker.join(timeout=300)
    assert "`feature cache` must be writable, but got" in message
    assert _files(tmp_path) == []
    assert np.array_equal(FeatureCache(tmp_path).get_or_compute(KEY, _features), _features())
