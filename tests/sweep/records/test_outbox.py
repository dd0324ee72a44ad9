"""Writes in their order, each once, whatever is in the way; and an end that does not wait for what never comes."""

from __future__ import annotations

import threading
import time

import pytest

from sweep.records import outbox
from sweep.records.outbox import Outbox


class AwayError(Exception):
    """It passes."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "GRACE_S", 0.2)


def new(told: list[str]) -> Outbox:
    return Outbox(
        lambda error: isinstance(error, AwayError), lambda error: told.append("back" if error is None else "away")
    )


def test_what_passes_is_tried_until_it_is_done_and_all_stays_in_order() -> None:
    told: list[str] = []
    box, done, failures = new(told), list[int](), {2: 3, 5: 1}
    for number in range(8):

        def write(number: int = number) -> None:
            if failures.get(number, 0):
                failures[number] -= 1
                raise AwayError
            done.append(number)

        box.submit(write)
    assert box.close(lambda: done.append(99), None) == 0
    assert done == [*range(8), 99]
    assert told == ["away", "back", "away", "back"]
    assert box.errors == []


def test_what_fails_for_good_is_kept_and_the_rest_is_written() -> None:
    told, done = list[str](), list[int]()
    box = new(told)
    box.submit(lambda: done.append(1 // 0))
    box.submit(lambda: done.append(1))
    assert box.close(lambda: done.append(2), None) == 0
    assert done == [1, 2] and told == []
    assert [type(error) for error in box.errors] == [ZeroDivisionError]


def test_submitting_does_not_wait_and_closing_only_as_long_as_it_may() -> None:
    box, done, free = new([]), list[int](), threading.Event()
    started = time.monotonic()
    box.submit(lambda: free.wait(30))
    for number in range(1000):
        box.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert time.monotonic() - started < 1
    assert box.close(lambda: done.append(-1), 0.05) == 1001
    assert time.monotonic() - started < 3
    free.set()
    box._thread.join(5)
    assert done == [-1]  # the rest was left out, and the last was done


def test_a_close_ends_the_waiting_for_what_does_not_come_back() -> None:
    box, done = new([]), list[int]()

    def never() -> None:
        raise AwayError

    box.submit(never)
    box.submit(lambda: done.append(1))
    assert box.close(lambda: done.append(2), 0.1) == 2
    assert done == [2]
