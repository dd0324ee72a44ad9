"""The small parent of a sweep: where the sweep dies without a word, it closes the records, and says why and how to go on.

It forks before Ray and torch are imported, passes signals on, and ends as its child does. Ray's processes of a child that
died become its own, so that it can end them: none is left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import psutil
from rich.markup import escape

from analysis.run_folder import CONFIG
from analysis.terminal import new_console
from sweep.interrupts import SIGNALS
from sweep.trials.memory_kills import KernelKills, kernel_kill

OPEN, CLOSED, WATCH, UNWATCH = "open", "closed", "watch", "unwatch"
"""What a sweep tells its parent, a line each: whose records are open (the folder follows) or closed, and whether Ray's
processes on this machine should live."""
OF_RAY: Final = ("raylet", "gcs_server")
POLL_S: Final = 0.1
LOOK_S: Final = 1.0
IN_VAIN_S: Final = 15.0
"""Seconds that a sweep without its Ray may take to end by itself, before it is told to end as by SIGTERM."""
CLOSING_S: Final = 22.0
"""Seconds that a sweep may take after SIGTERM: 8 for trials that keep where they are, 2 + 3 for the study on disk, 3 + 3
for MLflow, and 3 for the report. Slurm and Kubernetes kill both processes 30 s after SIGTERM; what is left of these is for
clearing up and closing records."""
GRACE_S: Final = 3.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_channel: int | None = None
"""The pipe on which a guarded sweep tells its parent of itself; None in every other process."""


def guarded(command: Callable[[], None], how_to_go_on: Callable[[Path], str]) -> NoReturn:
    """Run a command in a child of this process, and end as it does.

    Args:
        command: called in the child; `records_open` and `ray_watched` in it tell the parent.
        how_to_go_on: what to say to who would go on with a run directory.
    """
    global _channel
    reading, writing = os.pipe()
    _set_process(PR_SET_CHILD_SUBREAPER, 1)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(reading)
        _set_process(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)
        _channel = writing
        command()
        sys.exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    sys.exit(Guard(child, reading).end(how_to_go_on))


@contextmanager
def records_open(out: Path) -> Iterator[None]:
    """Tell the parent, if there is one, that records are open in the block, and closed after it however it ends."""
    _tell(f"{OPEN} {out}")
    try:
        yield
    finally:
        _tell(CLOSED)


@contextmanager
def ray_watched() -> Iterator[None]:
    """Have the parent, if there is one, see to it that Ray's processes live in the block."""
    _tell(WATCH)
    try:
        yield
    finally:
        _tell(UNWATCH)


def _tell(line: str) -> None:
    if _channel is not None:
        with suppress(BrokenPipeError):  # the parent was killed, and this process is told to end
            os.write(_channel, os.fsencode(f"{line}\n"))


def _set_process(option: int, value: int) -> None:
    """Linux alone has these; elsewhere what was seen of the child's processes has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Guard:
    """Waits for a child process, and for what it leaves.

    Args:
        child: its process id.
        reading: where it tells of itself; does not block.
    """

    def __init__(self, child: int, reading: int) -> None:
        self._child, self._reading, self._text = child, reading, b""
        self._seen: set[psutil.Process] = set()
        """Processes that the child has started, as far as they were seen."""
        self._watched: dict[str, psutil.Process] = {}
        self._lost: tuple[str, float] | None = None
        """What of Ray died before the child, and when that was seen."""
        self._ending_s: float | None = None
        """When the child was told to end by SIGTERM, by whomever."""
        self._was_late = False
        self._others = {process for process in psutil.Process().children() if process.pid != child}
        """Processes that a shell had started before it became this process: they are not the child's, and are left
        alone."""
        self._kills, self._told = KernelKills(), list[str]()

    def end(self, how_to_go_on: Callable[[Path], str]) -> int:
        """Wait until the child has ended, clear up after it, and give the exit code to end with."""
        with self._passing_signals():
            status = self._wait()
            self._listen()
            self._clear(grace_s=0.0 if self._left_open() is None and self._lost is None else GRACE_S)
        code = -signal.SIGTERM if self._was_late and self._lost is None else os.waitstatus_to_exitcode(status)
        out = self._left_open()
        if out is not None or (self._lost is not None and code != 0):
            self._say(f"{self._reason(code)} {how_to_go_on(out) if out is not None else ''}")
        if out is not None and (out / CONFIG).is_file():
            self._close(out)
        return 128 - code if code < 0 else code or (1 if out is not None else 0)

    @contextmanager
    def _passing_signals(self) -> Iterator[None]:
        """Pass signals on; what this process ignores, its child ignores by itself."""

        def pass_on(number: int, frame: object) -> None:
            if number == signal.SIGTERM and self._ending_s is None:
                self._ending_s = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

        before = {
            signum: signal.signal(signum, pass_on)
            for signum in SIGNALS
            if signal.getsignal(signum) not in (signal.SIG_IGN, None)
        }
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _wait(self) -> int:
        looked = time.monotonic()
        while True:
            ended, status = os.waitpid(self._child, os.WNOHANG)
            if ended:
                return status
            if time.monotonic() - looked >= LOOK_S:
                with suppress(psutil.Error):  # it ends at this moment
                    self._look()
                self._hurry()
                looked = time.monotonic()
            time.sleep(POLL_S)

    def _look(self) -> None:
        """See what the child has started, and whether what it needs of that still lives."""
        child = psutil.Process(self._child)
        self._seen.update(child.children(recursive=True))
        gone = [name for name, process in self._watched.items() if not _lives(process)]
        self._listen()
        if not self._is_watching():
            self._watched = {}
            return
        for process in child.children():
            if process.name() in OF_RAY:
                self._watched.setdefault(process.name(), process)
        if gone and self._lost is None and _lives(child):  # else they died with it
            self._lost = gone[0], time.monotonic()

    def _hurry(self) -> None:
        """Tell a child to end that waits for its lost Ray, once, as a second signal ends it at once; end it if it does not."""
        now_s = time.monotonic()
        if self._ending_s is not None and now_s - self._ending_s > CLOSING_S:
            self._was_late = True
            os.kill(self._child, signal.SIGKILL)
        elif self._ending_s is None and self._waits_in_vain(now_s):
            self._ending_s = now_s
            os.kill(self._child, signal.SIGTERM)

    def _waits_in_vain(self, now_s: float) -> bool:
        return self._lost is not None and self._is_watching() and now_s - self._lost[1] > IN_VAIN_S

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._reading, 4096):
                self._text += part
        *whole, self._text = self._text.split(b"\n")
        self._told += [os.fsdecode(line) for line in whole]

    def _is_watching(self) -> bool:
        return [line for line in self._told if line in (WATCH, UNWATCH)][-1:] == [WATCH]

    def _left_open(self) -> Path | None:
        """The run directory whose records the child has not closed."""
        last = ([line for line in self._told if line.startswith((OPEN, CLOSED))] or [CLOSED])[-1]
        return Path(last.removeprefix(f"{OPEN} ")) if last != CLOSED else None

    def _clear(self, grace_s: float) -> None:
        """End what the child has left; on Linux that is this process's by now.

        Args:
            grace_s: how long it may take to end by itself. A child that ended in order has closed all that is to be closed.
        """
        children = [process for process in psutil.Process().children() if process not in self._others]
        under = [process for child in children for process in _under(child)]
        left = [process for process in {*self._seen, *children, *under} if _lives(process)]
        for end, wait_s in ((psutil.Process.terminate, grace_s), (psutil.Process.kill, GRACE_S)):
            for process in left if wait_s else ():
                with suppress(psutil.Error):
                    end(process)
            _, left = psutil.wait_procs(left, timeout=wait_s)

    def _say(self, error: str) -> None:
        new_console(stderr=True).print(f"[red]error[/red] {escape(error.strip())}", soft_wrap=True)

    def _close(self, out: Path) -> None:
        from sweep.records.tracking import TrackingError, close_broken  # takes seconds, and few sweeps die

        try:
            close_broken(out)
        except TrackingError as error:
            self._say(str(error))

    def _reason(self, code: int) -> str:
        if self._lost is not None:
            return f"`{self._lost[0]}`, a process of Ray's that the sweep cannot do without, died."
        if memory := kernel_kill(self._kills()):
            return memory
        if self._was_late:
            return f"`sweep` must close its records within {CLOSING_S:g} s of SIGTERM, but took longer, and was ended."
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"`sweep` must close its records before it ends, but its process {ended} without a word."


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _under(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []
