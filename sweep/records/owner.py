"""A run directory has one owner: the process that writes to it, known by a lock that ends with the process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sweep.config import ConfigError

LOCK: Final = "owner.lock"
BEAT_S: Final = 15.0
"""How often an owner says that it lives."""
DEAD_AFTER_S: Final = 90.0
"""An owner on another machine, whose lock a file system may not show here, counts as dead after so long a silence."""
OWNERS_ONLY: Final = 0o700


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Own a run directory, which is made where it is missing, for the length of a block.

    Raises:
        ConfigError: another process owns it, or it is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`--out` must be a folder, but got the file {str(out)!r}. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True, mode=OWNERS_ONLY)
    handle = _claim(out)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(handle, ended), name="owner", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        (out / LOCK).unlink(missing_ok=True)
        os.close(handle)
        if not any(out.iterdir()):  # what was asked for was refused
            out.rmdir()


def _claim(out: Path) -> int:
    """An open file with the lock."""
    while True:
        handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle, out)
        except BaseException:
            os.close(handle)
            raise
        if _is_still(handle, out / LOCK):
            _write(handle)
            return handle
        os.close(handle)  # its last owner has just removed it


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(out, _read(handle)) from None
    owner = _read(handle)
    if owner.get("host") != socket.gethostname() and time.time() - owner.get("beat", 0.0) < DEAD_AFTER_S:
        raise _refusal(out, owner)


def _is_still(handle: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(handle), path.stat())


def _refusal(out: Path, owner: Mapping[str, Any]) -> ConfigError:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return ConfigError(
        f"`--out` must not be in use, but got {str(out)!r}, which {who} writes to. "
        f"Choose another --out, or end that process first; {DEAD_AFTER_S:.0f} s after its machine died, the folder is free."
    )


def _beat(handle: int, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        _write(handle)


def _write(handle: int) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}
    os.pwrite(handle, json.dumps(owner).ljust(256).encode(), 0)


def _read(handle: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(handle, 4096, 0)))
    except ValueError:
        return {}
