"""A run directory has one owner: the process that writes to it, known by a lock that ends with the process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from sweep.config import ConfigError

LOCK: Final = "owner.lock"
BEAT_S: Final = 15.0
"""How often an owner says that it lives."""
DEAD_AFTER_S: Final = 90.0
"""An owner on another machine, whose lock a file system may not show here, counts as dead after so long a silence."""
OWNERS_ONLY: Final = 0o700


UNLOCKABLE: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems answer that have no locks: there, only the owner's sign of life counts."""


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Own a run directory, which is made where it is missing, for the length of a block.

    Raises:
        ConfigError: another process owns it, or it is not a folder.
    """
    is_new = not out.exists()
    if not is_new and not out.is_dir():
        raise ConfigError(f"`run directory` must be a folder, but got the file {str(out)!r}. Choose another.")
    out.mkdir(parents=True, exist_ok=True, mode=OWNERS_ONLY)
    handle, ended, owner = _claim(out), threading.Event(), _this_process()
    _write(handle, owner)
    beats = threading.Thread(target=_beat, args=(handle, owner, ended), name="owner", daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        (out / LOCK).unlink(missing_ok=True)
        os.close(handle)
        if is_new:
            with suppress(OSError):  # it holds something, unless what was asked for was refused
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
            return handle
        os.close(handle)  # its last owner has just removed it


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = True
    except BlockingIOError:
        raise _refusal(out, _read(handle)) from None
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
        is_locked = False
    owner = _read(handle)
    has_died = owner.get("host") == socket.gethostname() and (is_locked or not psutil.pid_exists(owner["pid"]))
    if not has_died and time.time() - owner.get("beat", 0.0) < DEAD_AFTER_S:
        raise _refusal(out, owner)


def _is_still(handle: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(handle), path.stat())


def _refusal(out: Path, owner: Mapping[str, Any]) -> ConfigError:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return ConfigError(
        f"`run directory` must not be in use, but got {str(out)!r}, which {who} writes to. "
        f"Choose another, or end that process first; {DEAD_AFTER_S:.0f} s after its machine died, the folder is free."
    )


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}


def _beat(handle: int, owner: Mapping[str, Any], ended: threading.Event) -> None:
    """Say from time to time that the owner lives; end it where another has taken over while it was suspended."""
    while not ended.wait(BEAT_S):
        with suppress(OSError):  # the disk may be back at the next beat
            if _read(handle).get("token", owner["token"]) != owner["token"]:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            _write(handle, owner)


def _write(handle: int, owner: Mapping[str, Any]) -> None:
    os.pwrite(handle, json.dumps({**owner, "beat": time.time()}).ljust(256).encode(), 0)


def _read(handle: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(handle, 4096, 0)))
    except ValueError:
        return {}
