"""Files that are whole or absent say their name where the disk takes no more."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from analysis.files import whole_file


def test_a_file_that_finds_no_room_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"), whole_file(path) as file:
            file.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(left.name, left.read_bytes()) for left in tmp_path.iterdir()] == [("table", b"old")]
