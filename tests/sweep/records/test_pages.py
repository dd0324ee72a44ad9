"""The report of a running sweep: rewritten behind it, never so often that it costs, and never over that of its end."""

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
    assert keeper._writer is not None
    keeper._writer.join(60)


def test_a_page_is_written_when_a_trial_ends_and_not_while_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, free = list[Path](), threading.Event()

    def slow(out: Path, *, with_importances: bool) -> str:
        made.append(out)
        free.wait(60)
        return f"importances: {with_importances}"

    monkeypatch.setattr(pages, "report_page", slow)
    keeper, started = PageKeeper(tmp_path), time.monotonic()
    for number in range(50):
        keeper.on_end(str(number), END)
    assert time.monotonic() - started < 30
    free.set()
    settled(keeper)
    assert made == [tmp_path]
    assert (tmp_path / "report.html").read_text() == "importances: False"


def test_a_page_that_is_being_made_at_the_end_is_not_waited_for_and_takes_no_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    def slow(out: Path, *, with_importances: bool) -> str:
        free.wait(60)
        return "old"

    monkeypatch.setattr(pages, "report_page", slow)
    keeper, started = PageKeeper(tmp_path), time.monotonic()
    keeper.on_end("a", END)
    keeper.close()
    assert time.monotonic() - started < 30
    (tmp_path / "report.html").write_text("of the end")
    free.set()
    settled(keeper)
    assert (tmp_path / "report.html").read_text() == "of the end"


@pytest.mark.slow
def test_pages_take_at_most_their_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = list[float]()

    def costly(out: Path, *, with_importances: bool) -> str:
        time.sleep(0.01)
        spent.append(0.01)
        return ""

    monkeypatch.setattr(pages, "report_page", costly)
    keeper, started = PageKeeper(tmp_path), time.monotonic()
    while time.monotonic() - started < 1:
        keeper.on_end("a", END)
        time.sleep(0.002)
    settled(keeper)
    took_s = time.monotonic() - started
    assert 1 <= len(spent) <= took_s * 0.05 / 0.01 + 1  # of a second, five times 0.01 s


def test_a_page_that_cannot_be_made_does_not_end_the_sweep(tmp_path: Path) -> None:
    keeper = PageKeeper(tmp_path)
    keeper.on_end("a", END)
    settled(keeper)
    keeper.close()
    assert list(tmp_path.iterdir()) == []
