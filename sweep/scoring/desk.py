"""Where evaluations are handed out: each goes to the actor that has the fewest to do, and idle ones help it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors as actor_table
from ray.exceptions import RayError

Question = tuple[Path | None, Path, float]
"""What `AdapterScorer.score` takes."""
ALIVE, DEAD = "ALIVE", "DEAD"
"""Ray's words for an actor that works, and for one that will never work again; in between it waits for a process or node."""


class Desk:
    """A small process that all trials ask, since none of them knows what the others have given to the actors.

    It counts evaluations whose results are not there yet; those of a trial that died end, and are counted no more. An actor
    that is dead has nothing to do, and would have the fewest for ever: who is alive is asked of Ray each time.
    """

    def __init__(self, *actors: Any) -> None:
        """Hand out to these actors, none of which has anything to do.

        One by one, as Ray would keep a list of them where a desk that is started again may not find it.
        """
        self._actors = actors
        self._running: list[list[tuple[Question, Any]]] = [[] for _ in actors]
        self._helping: list[list[Any]] = [[] for _ in actors]
        """Scores of evaluations that each helps others with."""
        self._answered: list[Question | None] = [None for _ in actors]
        """What each has answered last, which it answers again at once."""

    def score(self, adapter: Path | None, samples: Path, share_done: float = 1.0) -> tuple[int, list[Any]]:
        """Begin an evaluation, for which those who have nothing to do make some of the films.

        Who helps counts as busy until it ends. So an evaluation waits at most for one that began later, and never both for
        each other; where a desk was lost, `made_together` does not wait without end.

        Args:
            adapter, samples, share_done: as `AdapterScorer.score` takes them.

        Returns:
            Which actor has it, and Ray's reference of its scores in a list, which keeps Ray from waiting for them.
        """
        self._look()
        question = adapter, samples, share_done
        number = self._chosen(question)
        helpers = self._idle_beside(number)
        scores = self._actors[number].score.remote(*question, *(self._actors[helper] for helper in helpers))
        self._running[number].append((question, scores))
        for helper in helpers:
            self._helping[helper].append(scores)
        return number, [scores]

    def _idle_beside(self, number: int) -> list[int]:
        """Those beside one who have nothing to do; none where that one is at something, and will not begin at once."""
        if self._running[number] or self._helping[number]:
            return []
        return [
            other
            for other, actor in enumerate(self._actors)
            if other != number and not (self._running[other] or self._helping[other]) and state_of(actor) == ALIVE
        ]

    def _look(self) -> None:
        """See what has been answered since."""
        for number, running in enumerate(self._running):
            waiting = _waiting([scores for _, scores in running])
            self._helping[number] = _waiting(self._helping[number])
            self._running[number] = [(asked, scores) for asked, scores in running if scores in waiting]
            for asked, scores in running:
                if scores not in waiting and _is_answer(scores):
                    self._answered[number] = asked

    def _chosen(self, question: Question) -> int:
        """The actor that is at this question or has just answered it, or else the one with the fewest to do.

        To help is less than to do: who helps is asked where none has nothing at all to do. One that is not alive is asked
        only where none is. One that failed to answer is no better than others.
        """
        states = [state_of(actor) for actor in self._actors]
        numbers = range(len(states))
        fit = (
            [number for number in numbers if states[number] == ALIVE]
            or [number for number in numbers if states[number] != DEAD]
            or numbers
        )
        knowing = [number for number in fit if self._knows(number, question)]
        return min(knowing or fit, key=lambda number: (len(self._running[number]), len(self._helping[number])))

    def _knows(self, number: int, question: Question) -> bool:
        return question == self._answered[number] or question in [asked for asked, _ in self._running[number]]


def state_of(actor: Any) -> str:
    """What Ray says of an actor: `ALIVE`, `DEAD`, or what it waits for."""
    return str(actor_table(actor._actor_id.hex()).get("State"))


def _waiting(references: list[Any]) -> list[Any]:
    """Those of Ray's references whose values are not there yet."""
    return list(ray.wait(references, num_returns=len(references), timeout=0)[1]) if references else []


def _is_answer(scores: Any) -> bool:
    try:
        ray.get(scores)
    except RayError:
        return False
    return True
