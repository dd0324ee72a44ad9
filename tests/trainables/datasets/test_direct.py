"""Files that are written past the system's cache hold what was written, and the checksums are of it."""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest

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
