"""Folders that commands write, when two write the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.storage import new_folder


def test_two_that_write_one_folder_leave_each_others_files_alone(tmp_path: Path) -> None:
    to = tmp_path / "out"
    with pytest.raises(OSError, match="not empty"), new_folder(to) as first:
        (first / "mine").touch()
        with new_folder(to) as second:
            (second / "theirs").touch()
        assert [file.name for file in first.iterdir()] == ["mine"]
    assert [file.name for file in to.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [to]
