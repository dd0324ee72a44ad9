"""The log of records: whole or not there, whatever happens to the file."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from sweep.records.log import RecordLog, read_log

VALUES: list[dict[str, Any]] = [
    {"number": 0, "text": "a line\nand another"},
    {"number": 1, "nested": {"rank": [1, 2]}, "nothing": None},
    {"number": 2, "text": "µ and \u2028"},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = RecordLog.create(tmp_path / "events.log")
    for values in VALUES:
        written.append("thing", values)
    written.close()
    return tmp_path / "events.log"


def values_in(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in ("event", "time")} for record in read_log(path).records]


def ends_of_lines(data: bytes) -> list[int]:
    """Where each line ends; records hold no raw line ends."""
    return [place + 1 for place, byte in enumerate(data) if byte == ord("\n")]


def test_records_are_read_as_they_were_written(path: Path) -> None:
    assert values_in(path) == VALUES
    contents = read_log(path)
    assert (contents.sound_bytes, contents.torn_bytes) == (path.stat().st_size, 0)


@pytest.mark.slow
def test_cut_at_any_byte_all_records_before_survive_and_the_log_goes_on(path: Path) -> None:
    data = path.read_bytes()
    ends = ends_of_lines(data)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        assert values_in(path) == VALUES[: max(0, whole - 1)]
        again = RecordLog.reopen(path)
        again.append("thing", {"number": 9})
        again.close()
        assert values_in(path) == [*VALUES[: max(0, whole - 1)], {"number": 9}]


def test_changed_at_any_byte_of_the_last_record_all_before_survive(path: Path) -> None:
    data = path.read_bytes()
    start = ends_of_lines(data)[-2]
    for place in range(start, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        assert values_in(path) == VALUES[:-1]


def test_changed_at_any_byte_before_whole_records_it_is_refused_and_left_alone(path: Path) -> None:
    """Cutting there would take whole records along."""
    data = path.read_bytes()
    for place in range(ends_of_lines(data)[-2]):
        changed = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="must hold whole records up to its last, but got a damaged one as line"):
            RecordLog.reopen(path)
        assert path.read_bytes() == changed


def test_a_file_that_is_no_log_is_refused_and_left_alone(path: Path) -> None:
    path.write_text('{"event": "log", "format": 2}\n')
    with pytest.raises(ValueError, match="damaged one as line 1"):
        RecordLog.reopen(path)
    assert path.read_text() == '{"event": "log", "format": 2}\n'


def test_what_was_torn_is_kept_beside_and_told(path: Path) -> None:
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"0000")
    assert read_log(path).torn_bytes == 4
    RecordLog.reopen(path).close()
    assert path.read_bytes() == whole
    assert path.with_name("events.log.torn-1").read_bytes() == b"0000"


def test_a_log_is_never_written_over(path: Path) -> None:
    with pytest.raises(FileExistsError):
        RecordLog.create(path)
    assert values_in(path) == VALUES


def test_another_format_is_refused_and_left_alone(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.records.log.FORMAT", 99)
    with pytest.raises(ValueError, match=r"`format` of the event log must be 99, but got 1\. Read the run with"):
        read_log(path)
    with pytest.raises(ValueError, match="`format` of the event log"):
        RecordLog.reopen(path)


def test_a_record_that_does_not_fit_the_disk_leaves_nothing_of_itself(path: Path) -> None:
    """A limit on file sizes stands for a full disk; once there is room again the log goes on."""
    log, limits = RecordLog.reopen(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"fewer|too large"):
            log.append("thing", {"number": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert values_in(path) == VALUES and read_log(path).torn_bytes == 0
    log.append("thing", {"number": 4})
    log.close()
    assert values_in(path) == [*VALUES, {"number": 4}]


def test_a_record_is_on_the_disk_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size) or really(handle))
    log = RecordLog.reopen(path)
    log.append("thing", {"number": 3})
    assert synced == [path.stat().st_size]
    log.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_does_not_take_a_record_leaves_nothing_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The disk says so only when it is to be sure of the record. Once it is back, the log goes on."""

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    log = RecordLog.reopen(path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match=f"{os.strerror(number)}: '{path}'"):
            log.append("thing", {"number": 3})
    assert values_in(path) == VALUES
    log.append("thing", {"number": 4})
    log.close()
    assert values_in(path) == [*VALUES, {"number": 4}]
