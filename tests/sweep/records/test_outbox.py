"""Writes in their order, each once, whatever is in the way; and an end that does not wait for what never comes."""

from __future__ import annotations

import threading
import time

import pytest
from patience import until

from sweep.records import outbox
from sweep.records.outbox import Outbox


class AwayError(Exception):
    """It passes."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "GRACE_S", 60.0)  # a busy machine may need it; most closes end long before


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


def test_submitting_does_not_wait_and_closing_only_as_long_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "GRACE_S", 0.2)
    box, done, free = new([]), list[int](), threading.Event()
    started = time.monotonic()
    box.submit(lambda: free.wait(60))
    for number in range(1000):
        box.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert box.close(lambda: done.append(-1), 0.05) == 1001
    assert time.monotonic() - started < 30
    free.set()
    box._thread.join(60)
    assert done == [-1]  # the rest was left out, and the last was done


def test_a_close_ends_the_waiting_for_what_does_not_come_back() -> None:
    box, done = new([]), list[int]()

    def never() -> None:
        raise AwayError

    box.submit(never)
    box.submit(lambda: done.append(1))
    assert box.close(lambda: done.append(2), 0.1) == 2
    assert done == [2]


def test_a_close_tries_again_at_once_what_waits_for_its_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 30.0)
    told, done, is_back = list[str](), list[int](), threading.Event()
    box = new(told)

    def write() -> None:
        if not is_back.is_set():
            raise AwayError
        done.append(1)

    box.submit(write)
    until(lambda: told == ["away"])
    is_back.set()
    assert box.close(lambda: done.append(2), 20.0) == 0
    assert done == [1, 2]


def test_the_last_write_is_done_though_the_pause_is_longer_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 30.0)
    box, done = new([]), list[int]()

    def never() -> None:
        raise AwayError

    box.submit(never)
    assert box.close(lambda: done.append(1), 0.1) == 1
    assert done == [1]


def test_a_word_that_cannot_be_said_does_not_end_the_writing() -> None:
    def mute(error: Exception | None) -> None:
        raise BrokenPipeError

    box, done, failures = Outbox(lambda error: isinstance(error, AwayError), mute), list[int](), [AwayError()]

    def write() -> None:
        if failures:
            raise failures.pop()
        done.append(1)

    box.submit(write)
    assert box.close(lambda: done.append(2), 20.0) == 0
    assert done == [1, 2]
