"""Files that are written past the system's cache hold what was written, and the checksums are of it."""

from __future__ import annotations

import os
import random
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from open_files import num_open
from patience import until

from trainables.datasets.checksums import PART_BYTES
from trainables.datasets.direct import CHUNK_BYTES, NUM_CHUNKS, DirectFile


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK_BYTES, NUM_CHUNKS * CHUNK_BYTES + PART_BYTES + 4097])
def test_a_file_holds_what_was_written_and_has_the_checksum_of_each_part(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    content = chance.randbytes(size)
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file:
        start = 0
        while start < size:
            end = min(size, start + chance.choice((1, 7, 5000, 300_000, 2 * CHUNK_BYTES)))
            assert file.write(memoryview(content)[start:end]) == end - start
            start = end
        sums = file.complete().result()
        assert file.path.read_bytes() == content and list(tmp_path.iterdir()) == []
        (tmp_path / "film").write_bytes(b"of an earlier attempt")
        assert file.named(tmp_path / "film") and file.named(tmp_path / "film") and not file.named(tmp_path / "other")
    assert (tmp_path / "film").read_bytes() == content and len(list(tmp_path.iterdir())) == 1
    assert sums == [zlib.crc32(content[place : place + PART_BYTES]) for place in range(0, size, PART_BYTES)]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "film").stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_was_not_named_is_gone(tmp_path: Path) -> None:
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file:
        file.write(b"film")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file, pytest.raises(OSError, match="No space left"):
        for _ in range(NUM_CHUNKS):
            file.write(bytes(CHUNK_BYTES))
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file, pytest.raises(OSError, match="No space left"):
        file.write(b"film")
        file.complete().result()


def test_files_that_are_dropped_while_they_are_written_leave_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last who knows such a file is the thread that writes it."""
    write, dropped, before = os.pwrite, threading.Event(), num_open()

    def slow(handle: int, content: memoryview, place: int) -> int:
        assert dropped.wait(60)
        return write(handle, content, place)

    monkeypatch.setattr(os, "pwrite", slow)
    for complete in (False, True, True):
        file = DirectFile(tmp_path, np.empty(0, np.uint8))
        file.write(bytes(CHUNK_BYTES))
        if complete:
            file.complete()
    del file
    assert num_open() == before + 3
    dropped.set()
    until(lambda: num_open() == before)


@pytest.mark.parametrize("part", [4096 * 177, 700_001])
def test_what_the_disk_takes_in_parts_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    write, content = os.pwrite, random.Random(0).randbytes(CHUNK_BYTES + PART_BYTES + 17)
    monkeypatch.setattr(os, "pwrite", lambda handle, left, place: write(handle, left[:part], place))
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file:
        file.write(content)
        file.complete().result()
        assert file.path.read_bytes() == content


def fails(*arguments: object, **options: object) -> None:
    raise OSError(5, "Input/output error")


def test_where_no_name_can_be_given_the_file_of_that_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "film").write_bytes(b"of an earlier attempt")
    with DirectFile(tmp_path, np.empty(0, np.uint8)) as file:
        file.complete().result()
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", fails)
            assert not file.named(tmp_path / "film")
        assert (tmp_path / "film").read_bytes() == b"of an earlier attempt" and len(list(tmp_path.iterdir())) == 1
        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output error"):
            file.named(tmp_path / "film")


def test_what_cannot_be_begun_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = num_open()
    with pytest.raises(FileNotFoundError):
        DirectFile(tmp_path / "none", np.empty(0, np.uint8))
    monkeypatch.setattr("mmap.mmap", fails)
    with pytest.raises(OSError, match="Input/output error"):
        DirectFile(tmp_path, np.empty(0, np.uint8))
    assert num_open() == before
