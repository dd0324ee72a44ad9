"""A run directory has one owner: the process that writes to it, known by a lock that ends with the process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from analysis.run_folder import CACHE, CONFIG, EVENTS, PROVENANCE
from sweep.config import ConfigError

LOCK: Final = "owner.lock"
BEAT_S: Final = 15.0
"""How often an owner says that it lives."""
DEAD_AFTER_S: Final = 90.0
"""Seconds of silence after which an owner counts as dead that is on another machine, whose lock a file system may not
show here."""
OWNERS_ONLY: Final = 0o700
UNLOCKABLE: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems that have no locks: there, only the owner's sign of life counts."""
BEFORE_IT_BEGINS: Final = (CACHE, CONFIG, PROVENANCE)
"""What is in a run directory before its log is: a run begins with the log."""


@contextmanager
def owned(out: Path) -> Iterator[None]:
    """Own a run directory, which is made where it is missing, for the length of a block.

    Of a run that did not begin in the block nothing stays but what was there before.

    Raises:
        ConfigError: another process owns it, or it is not a folder.
        OSError: it cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"`run directory` must be a folder, but got the file {str(out)!r}. Choose another.")
    with _made(out):
        handle, ended, owner = _claim(out), threading.Event(), _this_process()
        _write(handle, owner)
        beats = threading.Thread(target=_beat, args=(handle, owner, ended), name="owner", daemon=True)
        beats.start()
        try:
            with _cleared_unless_begun(out):
                yield
        finally:
            ended.set()
            beats.join()
            (out / LOCK).unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder, made for its owner alone; what was made of it and its parents goes if it stays empty."""
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True, mode=OWNERS_ONLY)
        yield
    finally:
        for folder in new:
            with suppress(OSError):  # it holds something, or was not made
                folder.rmdir()


@contextmanager
def _cleared_unless_begun(out: Path) -> Iterator[None]:
    new = [out / name for name in BEFORE_IT_BEGINS if not (out / name).exists()]
    try:
        yield
    finally:
        if not (out / EVENTS).exists():
            for path in new:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


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
