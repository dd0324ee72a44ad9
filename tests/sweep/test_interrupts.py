"""Signals that end a sweep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from patience import until

from analysis.terminal import Interrupted
from sweep.interrupts import SIGNALS, has_come, interruptible, raise_if_interrupted
from trainables.suspending import IN_TRAINING, suspend


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """As a process in the foreground has them, whatever runs the tests."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_raised_with_its_exit_code(number: signal.Signals, exit_code: int) -> None:
    with pytest.raises(Interrupted) as raised, interruptible(), interruptible():
        os.kill(os.getpid(), number)
    assert raised.value.exit_code == exit_code


@pytest.mark.parametrize(("apart_s", "status"), [(0.0, 0), (-1.0, signal.SIGTERM)])
def test_a_second_signal_ends_the_process_unless_it_is_the_same_once_more(
    monkeypatch: pytest.MonkeyPatch, apart_s: float, status: int
) -> None:
    """A terminal's Ctrl+C reaches the sweep, and its parent, which passes it on."""
    monkeypatch.setattr("sweep.interrupts.SAME_S", 60.0 if apart_s == 0.0 else apart_s)
    child = os.fork()
    if child == 0:
        with suppress(Interrupted), interruptible():
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == status


def test_a_second_signal_ends_a_wait_for_trials_that_keep_where_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sweep.interrupts.SAME_S", -1.0)
    (tmp_path / IN_TRAINING).touch()  # nobody trains
    child = os.fork()
    if child == 0:
        with suppress(Interrupted), interruptible():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Interrupted:
                suspend([tmp_path], within_s=60, on_wait=lambda within_s: (tmp_path / "waits").touch())
        os._exit(0)
    until((tmp_path / "waits").exists)
    began_s = time.monotonic()
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM and time.monotonic() - began_s < 30


def test_it_is_known_whether_a_signal_has_come() -> None:
    with suppress(Interrupted), interruptible(), interruptible():
        assert not has_come(signal.SIGTERM)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            assert has_come(signal.SIGTERM) and not has_come(signal.SIGINT)
    assert not has_come(signal.SIGTERM)


def test_the_signal_is_known_also_where_a_library_raises_an_interrupt_of_its_own() -> None:
    """As Ray does while it waits."""
    with pytest.raises(Interrupted) as raised, interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise KeyboardInterrupt from None
    assert raised.value.exit_code == 143


def test_what_stood_before_is_back_afterwards() -> None:
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    with interruptible():
        assert all(signal.getsignal(signum) != handler for signum, handler in before.items())
    assert {signum: signal.getsignal(signum) for signum in SIGNALS} == before


def test_what_a_process_was_told_to_ignore_it_goes_on_ignoring() -> None:
    """`nohup` does so for SIGHUP, and shells do so for SIGINT in the background."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def lose_an_interrupt() -> None:
    """As where C code calls back, or an object is taken down: no exception passes through."""
    with suppress(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_that_was_lost_is_raised_when_it_is_next_asked_for() -> None:
    with pytest.raises(Interrupted) as raised, interruptible(), interruptible():
        lose_an_interrupt()
        raise_if_interrupted()
        pytest.fail("it went on")
    assert raised.value.exit_code == 143


def test_an_interrupt_that_was_lost_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(Interrupted) as raised, interruptible():
        lose_an_interrupt()
    assert raised.value.exit_code == 143


def test_without_an_interrupt_nothing_is_raised_also_after_one_that_is_over() -> None:
    raise_if_interrupted()
    with suppress(Interrupted), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    with interruptible():
        raise_if_interrupted()
