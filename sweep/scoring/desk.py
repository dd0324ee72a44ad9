"""Where evaluations are handed out: each goes to the actor that has the fewest to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray


class Desk:
    """A small process that all trials ask, since none of them knows what the others have given to the actors.

    It counts evaluations whose results are not there yet; those of a trial that died end, and are counted no more.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        """Hand out to these actors, none of which has anything to do."""
        self._actors = actors
        self._running: list[list[Any]] = [[] for _ in actors]

    def score(self, adapter: Path | None, samples: Path, share_done: float = 1.0) -> tuple[int, list[Any]]:
        """Begin an evaluation.

        Args:
            adapter, samples, share_done: as `AdapterScorer.score` takes them.

        Returns:
            Which actor has it, and Ray's reference of its scores in a list, which keeps Ray from waiting for them.
        """
        self._running = [_unfinished(references) for references in self._running]
        least = min(range(len(self._actors)), key=lambda number: len(self._running[number]))
        scores = self._actors[least].score.remote(adapter, samples, share_done)
        self._running[least].append(scores)
        return least, [scores]


def _unfinished(references: list[Any]) -> list[Any]:
    waiting: list[Any] = ray.wait(references, num_returns=len(references), timeout=0)[1] if references else []
    return waiting
