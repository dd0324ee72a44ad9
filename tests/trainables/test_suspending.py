"""Trainings that are asked to end before their time: how they are asked, and who waits for what."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from patience import LONG_S, until

from trainables import suspending
from trainables.suspending import (
    IN_TRAINING,
    LONGEST_STEP,
    Agreement,
    SuspendedError,
    beside_first,
    never,
    suspend,
    suspendable,
    unless_asked,
)


def train(folder: Path, seen: list[bool], last_s: float) -> None:
    """Take steps until asked to suspend that, and then as long as a checkpoint takes."""
    with suspendable(folder) as is_asked:
        while not is_asked():
            time.sleep(0.01)
        seen.append(True)
        time.sleep(last_s)


def test_who_asks_waits_until_all_that_train_have_ended(tmp_path: Path) -> None:
    folders, seen, waits = [tmp_path / name for name in ("a", "b", "idle")], list[bool](), list[float]()
    (tmp_path / "idle").mkdir()
    threads = [threading.Thread(target=train, args=(folder, seen, 0.3)) for folder in folders[:2]]
    for thread in threads:
        thread.start()
    until(lambda: all((folder / IN_TRAINING).exists() for folder in folders[:2]))
    suspend(folders, within_s=60, on_wait=lambda within_s: waits.append(within_s))
    assert seen == [True, True] and waits == [60] and not list(tmp_path.glob("*/*"))
    for thread in threads:
        thread.join()


def test_nobody_waits_longer_than_was_said_nor_for_trials_that_do_not_train(tmp_path: Path) -> None:
    (tmp_path / IN_TRAINING).touch()  # as a process leaves it that was killed
    began_s = time.monotonic()
    suspend([tmp_path], within_s=0.3)
    assert 0.3 <= time.monotonic() - began_s < 30
    suspend([tmp_path / "idle"], within_s=30, on_wait=lambda within_s: pytest.fail("there is nothing to wait for"))
    assert not (tmp_path / "idle").exists()
    with suspendable(tmp_path) as is_asked:  # begun anew in its folder
        assert not is_asked()


def steps_until_asked(folder: Path, step_s: float, asked: list[bool]) -> None:
    with suspendable(folder) as is_asked:
        while not is_asked():
            time.sleep(step_s)
        asked.append(True)


@pytest.mark.slow
@pytest.mark.parametrize("waits_for_steps", [True, False])
def test_a_step_that_takes_longer_than_the_wait_is_waited_for_where_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_for_steps: bool
) -> None:
    monkeypatch.setattr(suspending, "NOTED_FROM_S", 0.1)
    asked, waits = list[bool](), list[float]()
    thread = threading.Thread(target=steps_until_asked, args=(tmp_path, 1.0, asked))
    thread.start()
    note = tmp_path / LONGEST_STEP
    while not note.exists() or not note.read_text():
        time.sleep(0.01)
    longest_s = float(note.read_text())
    suspend([tmp_path], 0.2, waits.append, waits_for_steps=waits_for_steps)
    if waits_for_steps:
        assert asked == [True] and longest_s >= 1.0 and waits[0] >= 0.1 + 2 * longest_s
    else:
        assert waits == [0.2]
    thread.join()
    assert not list(tmp_path.iterdir())


def test_a_step_that_once_hung_is_not_waited_for_longer_than_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspending, "LONGEST_WAIT_S", 0.4)
    (tmp_path / IN_TRAINING).touch()
    (tmp_path / LONGEST_STEP).write_text("3600.0")
    waits = list[float]()
    suspend([tmp_path], 0.2, waits.append, waits_for_steps=True)
    assert waits == [0.4]


def test_quick_steps_are_not_noted_and_half_a_note_is_none(tmp_path: Path) -> None:
    with suspendable(tmp_path) as is_asked:
        assert not is_asked() and not is_asked() and not (tmp_path / LONGEST_STEP).exists()
        (tmp_path / LONGEST_STEP).write_text("")
        waits = list[float]()
        suspend([tmp_path], 0.1, waits.append, waits_for_steps=True)
        assert waits == [0.1]


def test_other_workers_of_a_suspended_training_end_after_the_first_has_kept_it(tmp_path: Path) -> None:
    """Ray kills what is left of a group soon after the first of its workers to end."""
    ended: list[str] = []

    def first() -> None:
        with suspendable(tmp_path) as is_asked:
            until(is_asked)
            asked.set()
            time.sleep(0.5)
            ended.append("first")

    def other() -> None:
        with suppress(SuspendedError), beside_first(tmp_path):
            asked.wait(LONG_S)
            raise SuspendedError
        ended.append("other")

    asked = threading.Event()
    threads = [threading.Thread(target=work) for work in (first, other)]
    for thread in threads:
        thread.start()
    until((tmp_path / IN_TRAINING).exists)
    suspend([tmp_path], LONG_S)
    for thread in threads:
        thread.join()
    assert ended == ["first", "other"]


def test_other_workers_wait_for_the_first_as_long_as_who_asked_and_not_at_another_end(tmp_path: Path) -> None:
    (tmp_path / IN_TRAINING).touch()  # of a first worker that is lost
    suspend([tmp_path], within_s=0.3)
    began_s = time.monotonic()
    with pytest.raises(SuspendedError), beside_first(tmp_path):
        raise SuspendedError
    assert 0.3 <= time.monotonic() - began_s < 30
    (tmp_path / IN_TRAINING).write_bytes(b"suspend 120.0")
    began_s = time.monotonic()
    with pytest.raises(ZeroDivisionError), beside_first(tmp_path) as is_asked:
        assert not is_asked()
        raise ZeroDivisionError
    assert time.monotonic() - began_s < 60


def _reached(asked: list[bool], num_processes: int, ends: set[int]) -> list[bool]:
    """After each step, whether a worker suspends that hears what the first one says, and says nothing itself."""
    answers: Iterator[bool] = iter(asked)
    accelerator: Any = SimpleNamespace(
        num_processes=num_processes,
        device=torch.device("cpu"),
        reduce=lambda tensor, reduction: tensor + float(next(answers)),
    )
    agreement = Agreement(never if num_processes > 1 else lambda: next(answers), accelerator)
    return [agreement.is_reached(ends_epoch=step in ends) for step in range(len(asked))]


def test_workers_suspend_a_step_after_the_first_was_asked_and_at_an_epochs_end_with_it() -> None:
    asked = [False, False, True, True, True]
    assert _reached(asked, 1, ends=set()) == [False, False, True, True, True]
    assert _reached(asked, 2, ends=set()) == [False, False, False, True, True]
    assert _reached(asked, 2, ends={2}) == [False, False, True, True, True]


def test_what_takes_long_is_waited_for_unless_the_trial_is_to_be_suspended() -> None:
    assert unless_asked(lambda: 3, never) == 3
    with pytest.raises(ZeroDivisionError):
        unless_asked(lambda: 1 // 0, never)
    forever, began_s = threading.Event(), time.monotonic()
    with pytest.raises(SuspendedError):
        unless_asked(forever.wait, lambda: time.monotonic() > began_s + 0.2)
    forever.set()


def test_a_call_that_ran_out_of_time_itself_is_over() -> None:
    """As a network disk answers, and Ray: no other end is waited for."""
    began_s = time.monotonic()

    def late() -> None:
        raise TimeoutError("a disk does not answer")

    with pytest.raises(TimeoutError, match="a disk does not answer"):
        unless_asked(late, lambda: time.monotonic() > began_s + 20)
