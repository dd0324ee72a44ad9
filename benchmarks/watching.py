"""What a command and the processes that it starts hold in memory while it runs."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

LOOK_S = 0.25
TITLE_CHARS = 60


@dataclass(frozen=True)
class Peak:
    """The most that one process held, in bytes; both may be of different moments."""

    resident: int = 0
    """All of it, pages of mapped files included."""
    anonymous: int = 0
    """Without these pages, which are the system's to take back."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A command that has ended well.

    Attributes:
        seconds: it took.
        said: on both of its channels.
        peaks: by the titles of its processes; of several with one title the largest counts.
    """

    seconds: float
    said: str
    peaks: Mapping[str, Peak]

    @property
    def largest(self) -> tuple[str, Peak]:
        """The process with the most anonymous memory."""
        return max(self.peaks.items(), key=lambda item: item[1].anonymous, default=("none", Peak()))


def watched(name: str, command: Sequence[str]) -> Watched:
    """Run a command, and look at all of its processes while it runs.

    Args:
        name: of what it does, for the message.
        command: with its arguments.

    Raises:
        RuntimeError: it failed.
    """
    started_s, over = time.perf_counter(), threading.Event()
    peaks: dict[str, Peak] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = threading.Thread(target=_watch, args=(process.pid, peaks, over))
        watch.start()
        said, _ = process.communicate()
        over.set()
        watch.join()
    if process.returncode:
        raise RuntimeError(f"`{name}` must end well, but got:\n{said}")
    return Watched(seconds=time.perf_counter() - started_s, said=said, peaks=peaks)


def _watch(root: int, peaks: dict[str, Peak], over: threading.Event) -> None:
    while not over.wait(LOOK_S):
        try:
            processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                title, memory = " ".join(process.cmdline()[:3])[-TITLE_CHARS:], process.memory_info()
            except psutil.Error:  # it has just ended
                continue
            before = peaks.get(title, Peak())
            peaks[title] = Peak(max(before.resident, memory.rss), max(before.anonymous, memory.rss - memory.shared))
