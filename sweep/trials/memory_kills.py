"""Processes that were ended for want of memory: by Ray, which says so, or by the kernel, which only counts them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MEMORY: Final = "`memory`"
"""How the reason of such an end begins."""
REMEDY: Final = (
    "Lower training.micro_batch, compute.concurrent_trials, compute.evaluation_actors, evaluation.batch_size or the "
    "batch sizes, or end other programs."
)
COUNTERS: Final = ("memory.events", "memory.oom_control")
"""Files of a control group with a line `oom_kill N`: of the second version, and of the first."""


def out_of_memory(trace: str) -> str | None:
    """What to do where Ray ended a process because its machine ran out of memory; nothing where that was not so.

    Args:
        trace: the message of Ray's exception.
    """
    match = re.search(r"Memory on the node .*?was ([\d.]+\w+)(?: used)? / ([\d.]+\w+)", trace)
    if match is None:
        return None
    return (
        f"{MEMORY} of the machine must suffice for all that runs on it, but got {match[1]} of {match[2]} in use, at which "
        f"Ray ended a process. {REMEDY}"
    )


def kernel_kill(count: int) -> str | None:
    """What to do where the kernel has ended processes for want of memory; nothing where it has ended none."""
    if count == 0:
        return None
    return (
        f"{MEMORY} that this sweep may use must suffice for all of its processes, but got the kernel ending {count} of "
        f"them. {REMEDY}"
    )


class KernelKills:
    """How many processes the kernel has ended for want of memory in this process's control group, since last asked.

    Ray's processes on this machine are in the same group, unless a cluster started them; of other machines it tells
    nothing.
    """

    def __init__(self, groups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> None:
        """Count from now on.

        Args:
            groups: names the process's control groups, a line each.
            mounts: where control groups are mounted.
        """
        self._counter = _counter(groups, mounts)
        self._told = self._total()

    def __call__(self) -> int:
        """The number since it was last asked."""
        before, self._told = self._told, self._total()
        return max(0, self._told - before)

    def _total(self) -> int:
        try:
            lines = () if self._counter is None else self._counter.read_text().splitlines()
        except OSError:  # the group is gone
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _counter(groups: Path, mounts: Path) -> Path | None:
    """The counter of the group nearest to the process that has one; None where the kernel keeps none."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return None
    for _, controllers, group in lines:
        if controllers not in ("", "memory"):
            continue
        for folder in (mounts / controllers / group.lstrip("/"), mounts / controllers):  # the second in a container
            for name in COUNTERS:
                if (folder / name).is_file():
                    return folder / name
    return None
