"""The report of a running sweep: rewritten behind it, and never so often that it costs."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from sweep.records import pages
from sweep.records.pages import PageKeeper
from sweep.trials.ends import TrialEnd

END = TrialEnd.completed()


def settled(keeper: PageKeeper) -> None:
    while keeper._outbox.num_waiting():
        time.sleep(0.001)


def test_a_page_is_written_when_a_trial_ends_and_not_while_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, free = list[Path](), threading.Event()

    def slow(out: Path) -> None:
        written.append(out)
        free.wait(10)

    monkeypatch.setattr(pages, "write_report", slow)
    keeper, started = PageKeeper(tmp_path), time.monotonic()
    for number in range(50):
        keeper.on_end(str(number), END)
    assert time.monotonic() - started < 1
    free.set()
    settled(keeper)
    assert written == [tmp_path]


def test_pages_take_at_most_their_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = list[float]()

    def costly(out: Path) -> None:
        time.sleep(0.01)
        spent.append(0.01)

    monkeypatch.setattr(pages, "write_report", costly)
    keeper, started = PageKeeper(tmp_path), time.monotonic()
    while time.monotonic() - started < 1:
        keeper.on_end("a", END)
        time.sleep(0.002)
    settled(keeper)
    assert 1 <= len(spent) <= 5 + 1  # 0.05 of 1 s is five times 0.01 s


def test_a_page_that_cannot_be_written_does_not_end_the_sweep(tmp_path: Path) -> None:
    keeper = PageKeeper(tmp_path)
    keeper.on_end("a", END)
    settled(keeper)
    keeper.close()
    assert [type(error) for error in keeper._outbox.errors] == [FileNotFoundError]
