"""Work on many items: results in their order, errors in their place, and no more of them waiting than said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from trainables.datasets.parallel import TOGETHER, WAITING_PER_CORE, in_order


def test_results_come_in_order_whatever_takes_long() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * 2

    assert list(in_order(slow_first, range(100))) == list(range(0, 200, 2))


def test_few_items_are_taken_ahead_of_what_is_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    assert list(islice(in_order(abs, items()), 5)) == [0, 1, 2, 3, 4]
    assert len(taken) <= 5 + ((os.cpu_count() or 1) * WAITING_PER_CORE + 1) * TOGETHER


def test_an_error_comes_in_its_place() -> None:
    for place in range(10):
        results = in_order(lambda number, place=place: 1 // (place - number), range(10))
        assert [next(results) for _ in range(place)] == [1 // (place - number) for number in range(place)]
        with pytest.raises(ZeroDivisionError):
            next(results)
