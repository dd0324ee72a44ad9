"""Signals that end a sweep: all of them take the way of Ctrl+C, so that records close and say how to go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

from analysis.terminal import Interrupted

SAME_S: Final = 1.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_blocks: Final[list[list[int]]] = []
"""Signals that have come in each block that is open."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block when the process is told to end; a second signal ends it at once.

    Entered anew wherever a library has put handlers of its own in place, as Ray does when it starts. What the process was
    told to ignore, as by `nohup`, it goes on ignoring. A signal that comes twice at once, as where a terminal or Slurm sends
    it to this process and to its parent, which passes it on, is one. An exception that is lost, as where a signal comes
    while C code calls back or an object is taken down, is raised by `raise_if_interrupted`, at the latest after the block.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        first_s = time.monotonic()

        def again(another: int, frame: FrameType | None) -> None:
            if time.monotonic() - first_s > SAME_S:
                signal.signal(another, signal.SIG_DFL)
                signal.raise_signal(another)

        for signum in SIGNALS:
            if _is_heeded(signum):
                signal.signal(signum, again)
        raise Interrupted(number)

    before = {signum: signal.signal(signum, interrupt) for signum in SIGNALS if _is_heeded(signum)}
    _blocks.append(received)
    try:
        yield
        raise_if_interrupted()
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) or not received:
            raise
        raise Interrupted(received[0]) from error  # Ray raises a plain one in its place
    finally:
        _blocks.pop()
        for signum, handler in before.items():
            if signal.getsignal(signum) is interrupt:  # none has come
                signal.signal(signum, handler)


def raise_if_interrupted() -> None:
    """Raise the interrupt that has come in an open block, if one has; for loops that others run, which may have lost it.

    Raises:
        Interrupted: the process was told to end.
    """
    if received := [number for block in _blocks for number in block]:
        raise Interrupted(received[0])


def has_come(number: signal.Signals) -> bool:
    """Whether a signal has come in an open block."""
    return any(number in block for block in _blocks)


def _is_heeded(number: signal.Signals) -> bool:
    return signal.getsignal(number) not in (signal.SIG_IGN, None)
