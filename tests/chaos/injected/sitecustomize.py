"""Faults in a sweep's own processes, for `tests/chaos/drive.py`: loaded by Python at its start where this folder is on its path.

CHAOS_FAULT=eio:N      the N-th record of events.log cannot be made sure of: EIO, once
CHAOS_FAULT=rename:N   the process that renames the N-th file of the run directory dies right after it, before it is recorded
CHAOS_FILE=NAME        only files of this name count
CHAOS_ONCE=FILE        appears with the fault, and no process has a second one
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

kind, _, number = os.environ.get("CHAOS_FAULT", "").partition(":")
count = 0


def is_due() -> bool:
    """Whether the fault is now; of all processes, one has it."""
    global count
    count += 1
    if count != int(number):
        return False
    with suppress(FileExistsError):
        os.close(os.open(os.environ["CHAOS_ONCE"], os.O_CREAT | os.O_EXCL))
        return True
    return False


def sync_or_fail(handle: int, really: Any = os.fsync) -> None:
    """Sync, or fail where it is the log's turn."""
    if Path(f"/proc/self/fd/{handle}").readlink().name == "events.log" and is_due():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    really(handle)


def rename_and_die(before: Any, after: Any, really: Any = os.replace, **options: Any) -> None:
    """Rename, and die where it is a run's file."""
    really(before, after, **options)
    path, name = os.fspath(after), os.environ.get("CHAOS_FILE", "")
    if path.startswith(os.environ["CHAOS_OUT"]) and path.endswith(name) and is_due():
        os.kill(os.getpid(), signal.SIGKILL)


if kind == "eio":
    os.fsync = sync_or_fail
if kind == "rename":
    os.replace = rename_and_die
