"""The same work on many items, on all cores, with results in their order and few of them waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WAITING_PER_CORE = 4
"""Results that may be ready before they are taken: enough that no core waits, few enough for memory."""


class Mapper(Protocol):
    """Does the same work on many items and gives the results in their order, on this machine's cores or anywhere else.

    Work and items can be pickled, for a mapper that sends them to other machines.
    """

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """The result of each item, or what the work raised on it, in its place."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work` in the order of the items.

    Threads do it: Pillow and NumPy let others run while they decode, resize and hash.

    Args:
        work: called with one item at a time, from several threads.
        items: taken as they are needed.

    Raises:
        Exception: what `work` raised on an item, in its place; later items may have been worked on.
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) > cores * WAITING_PER_CORE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
