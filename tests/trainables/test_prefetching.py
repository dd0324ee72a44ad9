"""A thread makes the next thing: the same ones, in order, one ahead."""

from __future__ import annotations

import threading

import pytest

from trainables.prefetching import prefetched


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_are_made_in_order_by_another_thread_which_then_ends(count: int) -> None:
    items = list(prefetched(range(count), lambda number: (number**2, threading.get_ident())))
    assert [(item, made[0]) for item, made in items] == [(number, number**2) for number in range(count)]
    assert threading.get_ident() not in {made[1] for _, made in items}
    assert not _threads()


def test_the_next_is_made_while_one_is_used() -> None:
    started = [threading.Event() for _ in range(3)]
    things = prefetched(range(3), lambda number: started[number].set())
    next(things)
    assert started[1].wait(timeout=30) and not started[2].is_set()
    things.close()
    assert not _threads()


def test_an_error_comes_in_its_items_place() -> None:
    things = prefetched([2, 1, 0], lambda number: 2 / number)
    assert [next(things)[1], next(things)[1]] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(things)
    assert not _threads()
