"""An append-only file of records that survives any death: each is whole and on the disk, or it is not there.

What a death leaves of its last record is cut off. Damage before whole records, as by a failing disk or an editor, would
take these along: such a log is refused.

A line is the length of its JSON in bytes and a CRC-32 of it, both as eight hexadecimal digits, then the JSON, as in
`0000002f 1c291ca3 {"event": "log", "format": 1}`. The first line names the format.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from sweep.records.garbage import without_collecting

FORMAT: Final = 1
EVENT: Final = "event"
"""Key of a record's kind."""
TIME: Final = "time"
"""Key of when a record was written, in UTC."""
HEAD: Final = "log"
"""Kind of the first record."""
NOT_FINITE: Final = "$float"
"""JSON has no NaN and no infinity: such a number stands as a mapping with this one key."""
FRAME: Final = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogContents:
    """What stands in a log.

    Attributes:
        records: the whole ones, in their order, without the first, which names the format.
        sound_bytes: length of the part that is whole.
        torn_bytes: length of what follows it, the beginning of a record.
    """

    records: list[dict[str, Any]]
    sound_bytes: int
    torn_bytes: int


class RecordLog:
    """Appends to a log; a record is on the disk before `append` returns."""

    def __init__(self, file: IO[bytes]) -> None:
        """See `RecordLog.create` and `RecordLog.reopen`."""
        self._file = file

    @classmethod
    def create(cls, path: Path) -> RecordLog:
        """Begin a log.

        Raises:
            FileExistsError: there is one already.
        """
        log = cls(path.open("xb", buffering=0))
        log.append(HEAD, {"format": FORMAT})
        _sync_folder(path.parent)
        return log

    @classmethod
    def reopen(cls, path: Path) -> RecordLog:
        """Go on with a log, whose torn end, if it has one, is kept beside it as `NAME.torn-1` and cut off.

        The caller must own the log: nobody else may write to it meanwhile.

        Raises:
            FileNotFoundError: there is no log.
            ValueError: it is damaged elsewhere than at its end, or a version that this one does not know wrote it.
        """
        contents = read_log(path)
        if contents.torn_bytes:
            _cut(path, contents.sound_bytes)
        if not contents.sound_bytes:  # the sweep died before its first record
            path.unlink()
            return cls.create(path)
        return cls(path.open("ab", buffering=0))

    def append(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add a record at the end.

        Raises:
            OSError: it could not be written, for example because the disk is full; the log ends as it did before.
        """
        record = {EVENT: kind, TIME: datetime.now(UTC).isoformat(), **_as_json(values)}
        line, before = _framed(json.dumps(record, allow_nan=False).encode()), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(
                    f"`{self._file.name}` must take {len(line)} bytes, but took fewer. Free space on its disk."
                )
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            if error.errno is not None:
                error.filename = self._file.name  # the system knows a number where the user wants a name
            raise

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()


@without_collecting()
def read_log(path: Path) -> LogContents:
    """The records of a log of any format, as far as they are whole.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: it is damaged elsewhere than at its end, or a version that this one does not know wrote it.
    """
    data = path.read_bytes()
    records, sound = [], 0
    for record, end in _whole_records(data):
        records.append(record)
        sound = end
    _require_known_format(records)
    if _holds_records(data[sound:]) or (not records and b"\n" in data):
        raise ValueError(
            f"`{path}` must hold whole records up to its last, but got a damaged one as line {len(records) + 1}. "
            "Restore the file from a copy, or start the sweep anew with another --out."
        )
    return LogContents(records=records[1:], sound_bytes=sound, torn_bytes=len(data) - sound)


def _framed(payload: bytes) -> bytes:
    return b"%08x %08x %s\n" % (len(payload), zlib.crc32(payload), payload)


def _whole_records(data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole record, and where it ends."""
    start = 0
    while (frame := FRAME.match(data, start)) is not None:
        begin, end = frame.end(), frame.end() + int(frame[1], 16)
        payload, end = data[begin:end], end + 1
        if data[end - 1 : end] != b"\n" or zlib.crc32(payload) != int(frame[2], 16):
            return
        yield _parsed(payload), end
        start = end


def _holds_records(damaged: bytes) -> bool:
    """Whether whole records stand somewhere behind a damaged one."""
    frames = FRAME.finditer(damaged)
    return any(next(_whole_records(damaged[frame.start() :]), None) is not None for frame in frames)


def _require_known_format(records: Sequence[Mapping[str, Any]]) -> None:
    """Runs outlive versions: a later format comes with a reader of this one."""
    if records and records[0].get("format") != FORMAT:
        raise ValueError(
            f"`format` of the event log must be {FORMAT}, but got {records[0].get('format')!r}. "
            "Read the run with the version that wrote it."
        )


def _cut(path: Path, length: int) -> None:
    """Move what follows the first `length` bytes into files beside, and make sure of both on the disk."""
    names = (path.with_name(f"{path.name}.torn-{number}") for number in itertools.count(1))
    with next(name for name in names if not name.exists()).open("xb") as kept:
        kept.write(path.read_bytes()[length:])
        kept.flush()
        os.fsync(kept.fileno())
    with path.open("r+b") as file:
        file.truncate(length)
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parsed(payload: bytes) -> Any:
    text = payload.decode()
    has_not_finite = NOT_FINITE in text  # few have, and looking at every mapping takes most of the time
    return (_WITH_NOT_FINITE if has_not_finite else _PLAIN).decode(text)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return {NOT_FINITE: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(value: dict[str, Any]) -> Any:
    return float(value[NOT_FINITE]) if value.keys() == {NOT_FINITE} else value


_PLAIN: Final = json.JSONDecoder()  # `json.loads` would look for the encoding of each record
_WITH_NOT_FINITE: Final = json.JSONDecoder(object_hook=_from_json)
