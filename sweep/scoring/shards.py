"""Films of an evaluation that several actors make together, each some of its batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError

from analysis.features.base import BATCH_SIZE
from sweep.config import EvaluationConfig
from sweep.scoring.plans import GenerationPlan
from sweep.scoring.streaming import Chosen, Drawn, Films
from trainables.sampling import num_batches

log = logging.getLogger(__name__)
PATIENCE_S = 5.0
"""How long helpers are waited for in any case, beside as long as our own part took."""
FETCHED_WITHIN_S = 300.0
"""How long films that a helper has made may take to come from its node, before they are made again."""
Make = Callable[[range], Iterator[Drawn]]
"""Makes the batches of these numbers."""
Answer = Callable[[float], Iterator[Drawn]]
"""Films that a helper was asked for, which may be waited for so many seconds.

Raises `HelperLostError` where they cannot be had by then.
"""
Ask = Callable[[range], AbstractContextManager[Answer]]
"""Asks a helper for the batches of these numbers, and does not wait for them; with the block ends what is still asked for."""


class HelperLostError(Exception):
    """A helper has not made its part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmJob:
    """Films that an evaluation needs.

    Attributes:
        adapter: a folder that a strategy exported; None: the un-adapted base.
        plan: which films.
        shown: bool[n], those whose pixels are wanted as they are.
        config: how they are made.
    """

    adapter: Path | None
    plan: GenerationPlan
    shown: Chosen
    config: EvaluationConfig

    @property
    def num_batches(self) -> int:
        """Batches in which all are made."""
        return num_batches(len(self.plan), self.config.batch_size)

    def shown_in(self, batches: range) -> Chosen:
        """Which films of these batches are shown."""
        return self.shown[batches.start * self.config.batch_size : batches.stop * self.config.batch_size]


def shared_out(num: int, among: int) -> list[range]:
    """Numbers from 0 on in parts that follow each other and differ by one at most, the first of the largest; none is empty."""
    ends = [-(-num * part // among) for part in range(among + 1)]
    return [range(start, end) for start, end in pairwise(ends) if start < end]


def made_together(make: Make, helpers: Sequence[Ask], num: int) -> Generator[Drawn, None, None]:
    """So many batches in their order, some of them made by helpers; what one does not bring in time is made here.

    So none is waited for without end, be it dead, slow, or at an evaluation that itself waits for this process.

    Args:
        make: makes batches here.
        helpers: they ask others for batches.
        num: how many batches there are in all.
    """
    ours, *theirs = shared_out(num, 1 + len(helpers)) or [range(0)]
    with ExitStack() as asked:
        answers = [(part, asked.enter_context(ask(part))) for part, ask in zip(theirs, helpers, strict=False)]
        started_s = time.monotonic()
        yield from make(ours)
        now_s = time.monotonic()
        deadline_s = now_s + (now_s - started_s) + PATIENCE_S
        for part, answer in answers:
            try:
                films = answer(max(0.0, deadline_s - time.monotonic()))
            except HelperLostError as error:
                log.warning("Batches %d to %d are made again: %s", part.start, part.stop - 1, error)
                yield from make(part)
            else:
                yield from films


def helper(actor: Any, job: FilmJob, device: torch.device) -> Ask:
    """Has an evaluation actor make batches of a job; one that dies does not make them again, since this process does.

    Args:
        actor: Ray's handle of an `AdapterScorer`.
        job: all films of the evaluation.
        device: where they are wanted.
    """

    @contextmanager
    def ask(batches: range) -> Iterator[Answer]:
        running = actor.films.options(max_task_retries=0).remote(job, batches)

        def answer(timeout_s: float) -> Iterator[Drawn]:
            try:
                if ray.wait([running], timeout=timeout_s, fetch_local=False)[0]:
                    grey, shown = ray.get(running, timeout=FETCHED_WITHIN_S)
                    return arrived(grey, shown, device)
            except RayError as error:
                raise HelperLostError(f"{type(error).__name__}: {error}") from error
            ray.cancel(running)
            raise HelperLostError("they are not done in time")

        try:
            yield answer
        finally:
            ray.cancel(running)  # of one that has ended nothing comes

    return ask


def while_wanted(parts: Iterator[Drawn]) -> Iterator[Drawn]:
    """Films that a helper makes, until they are cancelled: Ray tells a task of an actor so, but does not end it.

    Raises:
        HelperLostError: nobody waits for them.
    """
    for part in parts:
        if ray.get_runtime_context().is_canceled():
            raise HelperLostError("nobody waits for these films")
        yield part


def packed(parts: Iterator[Drawn]) -> tuple[Films, Films]:
    """Films in the host's memory, to be sent: all in grey, and those that are shown."""
    grey, shown = zip(*((part.grey.cpu().numpy(), part.shown) for part in parts), strict=True)
    return np.concatenate(grey), np.concatenate(shown)


def arrived(grey: NDArray[np.uint8], shown: Films, device: torch.device) -> Iterator[Drawn]:
    """What `packed` gave, on a device a few at a time; Ray's arrays cannot be written to, as torch's tensors can.

    Args:
        grey: uint8[n, H, W], all films.
        shown: uint8[m, H, W] or [m, H, W, 3], those to show.
        device: where they go.
    """
    for start in range(0, len(grey), BATCH_SIZE):
        films = torch.from_numpy(grey[start : start + BATCH_SIZE].copy()).to(device)
        yield Drawn(films, shown if start == 0 else shown[:0])
