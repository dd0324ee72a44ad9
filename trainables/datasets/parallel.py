"""The same work on many items, on all cores, with results in their order and few of them waiting."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from statistics import median
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
TOGETHER = 4
"""Items that are given to a core at once: to wake it takes a twentieth of the time that a small film does."""
WAITING_PER_CORE = 4
"""Bundles of that many results that may be ready for each core before they are taken: with fewer, cores wait longer while a
batch is written. They are not bounded by bytes: sixteen pictures for each core are 4 MiB at 512 px, and 1 GiB at the largest
side of 8,192 px."""
QUICK_S = 0.0005
"""What takes less is Python for the most part, for which threads wait in turn: two do three fifths as many films of 64 px as one."""
JUDGED = 8
"""Items by whose middle it is told whether they are quick: the first one may import what the others need."""
THREADED_PER_CORE = 1024
"""Items that threads do for each core until some are judged again."""


class Mapper(Protocol):
    """Does the same work on many items and gives the results in their order, on this machine's cores or anywhere else.

    Work and items can be pickled, for a mapper that sends them to other machines.
    """

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """The result of each item, or what the work raised on it, in its place."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work` in the order of the items: this thread does what is quick itself, and threads do what is not.

    Args:
        work: called with one item at a time, maybe from several threads.
        items: taken as they are needed.

    Raises:
        Exception: what `work` raised on an item, in its place; later items may have been worked on.
    """
    left = iter(items)
    while some := list(islice(left, JUDGED)):
        taken_s = []
        for item in some:
            begun_s = time.perf_counter()
            result = work(item)
            taken_s.append(time.perf_counter() - begun_s)
            yield result
        if median(taken_s) > QUICK_S:
            yield from by_threads(work, islice(left, (os.cpu_count() or 1) * THREADED_PER_CORE))


def by_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """As `in_order`, by threads alone: Pillow, NumPy and zlib let others run while they decode, resize and sum up.

    Args:
        work, items: as for `in_order`.

    Raises:
        Exception: as `in_order`.
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[tuple[list[Result], Exception | None]]] = deque()
    left = iter(items)
    with ThreadPoolExecutor(cores) as threads:
        try:
            while (some := list(islice(left, TOGETHER))) or waiting:
                if some:
                    waiting.append(threads.submit(_until_error, work, some))
                if not some or len(waiting) > cores * WAITING_PER_CORE:
                    done, error = waiting.popleft().result()
                    yield from done
                    if error is not None:
                        raise error
        finally:
            for future in waiting:
                future.cancel()


def _until_error(work: Callable[[Item], Result], items: list[Item]) -> tuple[list[Result], Exception | None]:
    """The results of items before the first on which an exception is raised; and that."""
    done: list[Result] = []
    for item in items:
        try:
            done.append(work(item))
        except Exception as error:  # noqa: BLE001  # the taker raises it, in its place
            return done, error
    return done, None
