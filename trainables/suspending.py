"""Trainings that are told to end before their time, to go on later: a file in the trial's folder is there while it trains.

Whoever ends a sweep writes into it that the training is to be suspended. The training reads it once a step, keeps where it
is, and removes it. That works wherever the run directory is seen, and needs nothing else of the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

if TYPE_CHECKING:
    from trainables.trial import Evaluator

IN_TRAINING: Final = "in-training"
"""Name of the file."""
LONGEST_STEP: Final = "longest-step"
"""Name of a file beside it, with the most seconds between two of the training's looks, where those are many."""
SUSPEND: Final = b"suspend"
"""What is written into the first file, and behind it for how many seconds whoever asks waits."""
NOTED_FROM_S: Final = 2.0
"""Seconds of a step below which nothing is noted: whoever asks waits for longer anyhow."""
POLL_S: Final = 0.1
LONGEST_WAIT_S: Final = 300.0
"""Seconds for which nobody waits longer, though a step may once have hung for an hour."""
Answer = TypeVar("Answer")


class SuspendedError(Exception):
    """A training was asked to end before its time; it can go on later from where it was."""


def never() -> bool:
    """What is said to a training that nobody can ask to end."""
    return False


@contextmanager
def suspendable(folder: Path) -> Iterator[Callable[[], bool]]:
    """Show in a trial's folder that it trains in the block, and give what says whether it is asked to suspend that."""
    mark = folder / IN_TRAINING
    folder.mkdir(parents=True, exist_ok=True)
    forget_marks(folder)  # of a process that was killed
    mark.write_bytes(b"")
    watch = _StepWatch(folder / LONGEST_STEP)

    def is_asked() -> bool:
        watch.looks()
        return _granted_s(mark) is not None

    try:
        yield is_asked
    finally:
        forget_marks(folder)


def forget_marks(folder: Path) -> None:
    """Remove what says that a trial trains, of which the process is over."""
    for name in (LONGEST_STEP, IN_TRAINING):  # who waits for the last one finds none of the others
        (folder / name).unlink(missing_ok=True)


class _StepWatch:
    """Notes the longest time for which a training does not look whether it is asked for something."""

    def __init__(self, note: Path) -> None:
        self._note, self._noted_s = note, NOTED_FROM_S
        self._before_s: float | None = None

    def looks(self) -> None:
        """Note what has passed since it looked last, where that is longer than ever, by more than the chance of a moment."""
        now_s = time.monotonic()
        step_s = now_s - (now_s if self._before_s is None else self._before_s)
        self._before_s = now_s
        if step_s > 1.1 * self._noted_s:
            self._noted_s = step_s
            with suppress(OSError):  # a full disk is no reason to end a training
                self._note.write_text(f"{step_s:.1f}")


def suspend(
    folders: Iterable[Path],
    within_s: float,
    on_wait: Callable[[float], None] = lambda within_s: None,
    *,
    waits_for_steps: bool = False,
) -> None:
    """Ask trials that train to suspend that, and wait until they have.

    Args:
        folders: of trials; those that do not train are not waited for.
        within_s: the most seconds to wait, half of them for the steps under way and half for keeping.
        on_wait: called with the most seconds where there is something to wait for.
        waits_for_steps: whether those are more where a step takes longer, though never more than `LONGEST_WAIT_S`; of a
            group the step after ends too.
    """
    folders = list(folders)
    if waits_for_steps:
        steps_s = max((2 * _longest_step_s(folder) for folder in folders), default=0.0)
        within_s = min(LONGEST_WAIT_S, within_s / 2 + max(within_s / 2, steps_s))
    asked = [mark for folder in folders if _ask(mark := folder / IN_TRAINING, within_s)]
    if asked:
        on_wait(within_s)
        _wait_until_gone(asked, within_s)


def _longest_step_s(folder: Path) -> float:
    """Seconds; none where no long step is noted, or only half of the note is written."""
    with suppress(OSError, ValueError):
        return float((folder / LONGEST_STEP).read_text())
    return 0.0


@contextmanager
def beside_first(folder: Path) -> Iterator[Callable[[], bool]]:
    """What `suspendable` is for the first worker of a training, for each other one: it hears of a suspension by the first.

    It ends after the first one, which keeps where the training is: of a group whose worker has ended, Ray kills the others.
    It waits as long for that as whoever asked does.
    """
    try:
        yield never
    except SuspendedError:
        mark = folder / IN_TRAINING
        _wait_until_gone([mark], _granted_s(mark) or 0.0)
        raise


def _wait_until_gone(marks: Collection[Path], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s and any(_read(mark) is not None for mark in marks):
        time.sleep(POLL_S)


def _ask(mark: Path, within_s: float) -> bool:
    """Write into a file that is there; one that has just been removed must not come back."""
    with suppress(OSError), mark.open("r+b") as file:
        file.write(b"%s %.1f" % (SUSPEND, within_s))
        file.truncate()
        return True
    return False


def _granted_s(mark: Path) -> float | None:
    """For how many seconds whoever asked for a suspension waits, None where nobody did."""
    asked, _, within_s = (_read(mark) or b"").partition(b" ")
    return float(within_s or 0.0) if asked == SUSPEND else None


def _read(mark: Path) -> bytes | None:
    """What the file holds, None where it is gone. It is opened each time: only then does a network disk look at it anew."""
    with suppress(OSError):
        return mark.read_bytes()
    return None


class Agreement:
    """Whether all workers of a training suspend it, each after the same step.

    The first worker is asked. Where there are several, all go by what was said at the step before, so that none waits for
    the device beyond the step before within an epoch.

    Args:
        is_asked: of this worker.
        accelerator: of the training.
    """

    def __init__(self, is_asked: Callable[[], bool], accelerator: Accelerator) -> None:
        self._is_asked, self._accelerator = is_asked, accelerator
        self._heard: Tensor | bool = False

    def is_reached(self, *, ends_epoch: bool) -> bool:
        """Whether the training is suspended after this step, of which each worker asks once.

        Args:
            ends_epoch: it is the last one of its epoch, after which only the first worker would hear of it.
        """
        before, self._heard = self._heard, self._of_all(self._is_asked())
        return bool(self._heard if ends_epoch or self._accelerator.num_processes == 1 else before)

    def _of_all(self, is_asked: bool) -> Tensor | bool:
        if self._accelerator.num_processes == 1:
            return is_asked
        heard: Tensor = self._accelerator.reduce(
            torch.full((), float(is_asked), device=self._accelerator.device), reduction="sum"
        )
        return heard


def unless_asked(call: Callable[[], Answer], is_asked: Callable[[], bool]) -> Answer:
    """What a call returns, which is no longer waited for where the trial is to suspend its training.

    Args:
        call: may take long; it runs in a thread of its own, which ends with the process where nobody waits for it.
        is_asked: whether the trial is to suspend its training.

    Raises:
        SuspendedError: it is.
    """
    answer: Future[Answer] = Future()
    Thread(target=_settle, args=(answer, call), name="waited for", daemon=True).start()
    while True:
        wait([answer], POLL_S)
        if answer.done():  # a call may raise the very TimeoutError that `result` raises where there is none yet
            return answer.result()
        if is_asked():
            raise SuspendedError


def _settle(answer: Future[Answer], call: Callable[[], Answer]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001  # raised where it is waited for
        answer.set_exception(error)


@dataclass(frozen=True)
class Suspendable:
    """An evaluator that is no longer waited for where the trial is to suspend its training.

    Attributes:
        evaluator: the one that is asked.
        is_asked: whether the trial is to suspend its training.
    """

    evaluator: Evaluator
    is_asked: Callable[[], bool]

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, Any]:
        """What the evaluator says.

        Raises:
            SuspendedError: the trial is to suspend its training.
        """
        return unless_asked(lambda: self.evaluator.evaluate(adapter, share_done), self.is_asked)
