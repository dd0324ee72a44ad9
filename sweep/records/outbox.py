"""Writes that one background thread does in their order, however long another program does not take them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Write = Callable[[], None]
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
GRACE_S: Final = 3.0
"""Seconds beyond its patience that a close waits for the write that is under way, and for the last one."""


class Outbox:
    """Does writes one after the other in a thread that no process waits for when it ends.

    What fails for a while is tried again until it succeeds, before anything after it; what fails for good is kept as an
    error, and the next write follows.

    Args:
        is_passing: whether an error is of the kind that goes by itself, as that of a server which is started anew.
        on_pause: hears of the first such error in a row before its write is tried again, and of None when it succeeded.
    """

    def __init__(self, is_passing: Callable[[Exception], bool], on_pause: Callable[[Exception | None], None]) -> None:
        self.errors: list[Exception] = []
        self._is_passing, self._on_pause = is_passing, on_pause
        self._writes: deque[Write] = deque()
        self._changed = threading.Condition()
        self._deadline_s: float | None = None
        self._last: Write | None = None
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Have something written after all that was submitted before; returns at once."""
        with self._changed:
            self._writes.append(write)
            self._changed.notify()

    def num_waiting(self) -> int:
        """How many writes have not been done."""
        return len(self._writes)

    def close(self, last: Write, patience_s: float | None) -> int:
        """Wait until all is written, and `last` after it.

        Args:
            last: done in any case, once, also where others are left out.
            patience_s: after so many seconds the rest is left out; None: never.

        Returns:
            How many writes were left out.
        """
        with self._changed:
            self._last = last
            self._deadline_s = float("inf") if patience_s is None else time.monotonic() + patience_s
            self._changed.notify()
        self._thread.join(None if patience_s is None else patience_s + GRACE_S)
        return self.num_waiting()

    def _work(self) -> None:
        while (write := self._next()) is not None:
            if not self._do(write):
                break
            self._writes.popleft()
        if self._last is not None:
            self._try(self._last)

    def _next(self) -> Write | None:
        """The write that is to be done now, which stays in its place until it is; None after all."""
        with self._changed:
            while not self._writes and self._deadline_s is None:
                self._changed.wait()
            return self._writes[0] if self._writes and not self._is_late() else None

    def _do(self, write: Write) -> bool:
        """Try until it is done or has failed for good; False where there is no more time."""
        pause_s = FIRST_PAUSE_S
        while (error := self._try(write)) is not None:
            if pause_s == FIRST_PAUSE_S:
                self._tell(error)
            self._pause(pause_s)
            if self._is_late():
                return False
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if pause_s != FIRST_PAUSE_S:
            self._tell(None)
        return True

    def _pause(self, pause_s: float) -> None:
        """Wait for the next try; a close has it done at once, and then no pause is longer than the time that is left."""
        with self._changed:
            if self._deadline_s is None:
                self._changed.wait_for(lambda: self._deadline_s is not None, pause_s)
            else:
                self._changed.wait(max(0.0, min(pause_s, self._deadline_s - time.monotonic())))

    def _tell(self, error: Exception | None) -> None:
        with suppress(Exception):  # a terminal that is gone
            self._on_pause(error)

    def _try(self, write: Write) -> Exception | None:
        """What is in its way for now."""
        try:
            write()
        except Exception as error:  # noqa: BLE001  # whatever it is, the sweep goes on; `errors` are told at its end
            if self._is_passing(error):
                return error
            self.errors.append(error)
        return None

    def _is_late(self) -> bool:
        return self._deadline_s is not None and time.monotonic() > self._deadline_s
