"""Work on many items: results in their order, errors in their place, and no more of them waiting than said."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from trainables.datasets import parallel
from trainables.datasets.parallel import JUDGED, QUICK_S, TOGETHER, WAITING_PER_CORE, Mapper, by_threads, in_order

MAPPERS = pytest.mark.parametrize("mapper", [in_order, by_threads])


@MAPPERS
def test_results_come_in_order_whatever_takes_long(mapper: Mapper) -> None:
    def slow_at_times(number: int) -> int:
        time.sleep(0.002 if number % 30 < 10 else 0)
        return number * 2

    assert list(mapper(slow_at_times, range(100))) == list(range(0, 200, 2))


def test_what_is_quick_is_done_here_and_what_is_not_by_threads_until_it_is_judged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "THREADED_PER_CORE", 10)
    threaded = 10 * (os.cpu_count() or 1)
    here = threading.get_ident()

    def slow_until_threaded(number: int) -> bool:
        """The first items but one are quick, then as many are slow as are judged, and then all are quick."""
        time.sleep(QUICK_S * 2 if number == 0 or JUDGED <= number < 2 * JUDGED else 0)
        return threading.get_ident() == here

    are_here = list(in_order(slow_until_threaded, range(2 * JUDGED + threaded + 20)))
    assert are_here == [True] * 2 * JUDGED + [False] * threaded + [True] * 20


@MAPPERS
def test_few_items_are_taken_ahead_of_what_is_asked_for(mapper: Mapper) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    assert list(islice(mapper(abs, items()), 5)) == [0, 1, 2, 3, 4]
    assert len(taken) <= 5 + ((os.cpu_count() or 1) * WAITING_PER_CORE + 1) * TOGETHER


@MAPPERS
def test_an_error_comes_in_its_place(mapper: Mapper) -> None:
    for place in range(10):
        results = mapper(lambda number, place=place: 1 // (place - number), range(10))
        assert [next(results) for _ in range(place)] == [1 // (place - number) for number in range(place)]
        with pytest.raises(ZeroDivisionError):
            next(results)
