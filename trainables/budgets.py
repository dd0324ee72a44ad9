"""How far each trial is trained: epochs, optimiser steps, images or seconds, the same for all trials of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from pydantic import model_validator

from trainables.batches import BatchPlan
from trainables.settings import Count, Positive, Section

EPOCHS: Final = "epochs"
SECONDS: Final = "seconds"


class Budget(Section):
    """What each trial may spend on training; where nothing is given, `training.num_epochs` passes over the images.

    A trial reports `training.num_epochs` times in any case: with a budget, an epoch is that part of it.

    Attributes:
        steps: of the optimiser, whatever the batch size.
        images: seen in training, each as often as it comes; the last batch is cut where they end.
        seconds: of training on the clock, without evaluations; a step that has begun is finished.
    """

    steps: Count | None = None
    images: Count | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if len(given := self._given()) > 1:
            raise ValueError(
                f"`search.budget` must be given in one way, but got {' and '.join(given)}. Leave all but one of them out."
            )
        return self

    @property
    def way(self) -> str:
        """A name in the table `WAYS`."""
        return next(iter(self._given()), EPOCHS)

    def expect_parts(self, num_epochs: int) -> None:
        """Refuse fewer steps than the epochs into which they are divided.

        Raises:
            ValueError: there are fewer.
        """
        if self.steps is not None and self.steps < num_epochs:
            raise ValueError(
                f"`search.budget.steps` must be at least the {num_epochs} epochs of training.num_epochs, into which it is "
                f"divided, but got {self.steps}. Raise it, or lower training.num_epochs."
            )

    def told(self, num_epochs: int) -> str:
        """What each trial may spend, in words.

        Args:
            num_epochs: of the training.
        """
        if self.way == EPOCHS:
            return f"{num_epochs} epochs"
        return f"{self._given()[self.way]:,g} {WAYS[self.way].words} in {num_epochs} parts,"

    def _given(self) -> Mapping[str, float]:
        return self.model_dump(exclude_none=True)


NO_BUDGET: Final = Budget()


@dataclass(frozen=True, kw_only=True)
class Course:
    """Where the epochs of a training end: each when its part of the budget is spent.

    Attributes:
        budget: of the trial.
        num_epochs: into how many equal parts it falls.
        plan: of its batches.
    """

    budget: Budget
    num_epochs: int
    plan: BatchPlan

    @property
    def num_steps(self) -> int | None:
        """Optimiser steps of the whole training; None where the clock decides."""
        return WAYS[self.budget.way].num_steps(self)

    def is_spent(self, epoch: int, step: int, seconds: float) -> bool:
        """Whether an epoch has ended.

        Args:
            epoch: 0-based.
            step: how many steps were taken since the beginning.
            seconds: that the training has taken since then.
        """
        way = WAYS[self.budget.way]
        return way.spent(self, step, seconds) * self.num_epochs >= way.total(self) * (epoch + 1)

    def share_done(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        way = WAYS[self.budget.way]
        return min(1.0, way.spent(self, step, seconds) / way.total(self))


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of measuring budgets.

    Attributes:
        words: what is counted.
        total: of a whole training.
        spent: after so many steps and seconds.
        num_steps: of a whole training, where they are known beforehand.
    """

    words: str
    total: Callable[[Course], float]
    spent: Callable[[Course, int, float], float]
    num_steps: Callable[[Course], int | None]


WAYS: Final[Mapping[str, Way]] = {
    EPOCHS: Way(
        words="passes over the images",
        total=lambda course: course.num_epochs * course.plan.num_images,
        spent=lambda course, step, seconds: course.plan.images_after(step),
        num_steps=lambda course: course.num_epochs * course.plan.steps_per_epoch,
    ),
    "steps": Way(
        words="optimiser steps",
        total=lambda course: course.budget.steps or 0,
        spent=lambda course, step, seconds: step,
        num_steps=lambda course: course.budget.steps,
    ),
    "images": Way(
        words="images",
        total=lambda course: course.budget.images or 0,
        spent=lambda course, step, seconds: course.plan.images_after(step),
        num_steps=lambda course: course.plan.steps_for(course.budget.images or 0),
    ),
    SECONDS: Way(
        words="seconds of training",
        total=lambda course: course.budget.seconds or 0.0,
        spent=lambda course, step, seconds: seconds,
        num_steps=lambda course: None,
    ),
}
