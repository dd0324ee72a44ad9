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


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block when the process is told to end; a second signal ends it at once.

    Entered anew wherever a library has put handlers of its own in place, as Ray does when it starts. What the process was
    told to ignore, as by `nohup`, it goes on ignoring. A signal that comes twice at once, as where a terminal or Slurm sends
    it to this process and to its parent, which passes it on, is one.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        first_s = time.monotonic()

        def again(another: int, frame: FrameType | None) -> None:
            if time.monotonic() - first_s > SAME_S:
                signal.signal(another, signal.SIG_DFL)
                signal.raise_signal(another)

        for one in SIGNALS:
            if _is_heeded(one):
                signal.signal(one, again)
        raise Interrupted(number)

    before = {one: signal.signal(one, interrupt) for one in SIGNALS if _is_heeded(one)}
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) or not received:
            raise
        raise Interrupted(received[0]) from error  # Ray raises a plain one in its place
    finally:
        for one, handler in before.items():
            if signal.getsignal(one) is interrupt:  # none has come
                signal.signal(one, handler)


def _is_heeded(number: signal.Signals) -> bool:
    return signal.getsignal(number) not in (signal.SIG_IGN, None)
