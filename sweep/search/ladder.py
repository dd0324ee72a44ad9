"""The rungs of a sweep: after how many epochs trials are compared, and which may not be stopped yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Rungs first * eta^k below the whole training.

    Attributes:
        epochs: of each rung, how many are behind a trial that reaches it, ascending; none: trials are never compared.
        floors: by strategy, the fewest epochs that its trials are trained; none for a strategy: those of the first rung.
    """

    epochs: tuple[int, ...] = ()
    floors: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, *, first: int | None, eta: int, num_epochs: int, floors: Mapping[str, int]) -> Ladder:
        """The rungs below a number of epochs.

        Args:
            first: epochs of the first rung; None: the whole training over eta^2, rounded up, so that there are two rungs
                where the training has epochs enough.
            eta: epochs of a rung over those of the one before, at least 2.
            num_epochs: the whole training's.
            floors: by strategy.
        """
        first = -(-num_epochs // eta**2) if first is None else first
        return cls(epochs=tuple(_powers(first, eta, below=num_epochs)), floors=floors)

    def rung_after(self, num_epochs: int) -> int | None:
        """The 0-based number of the rung that a trial reaches with that many epochs, if it does."""
        return self.epochs.index(num_epochs) if num_epochs in self.epochs else None

    def may_stop(self, strategy: str, num_epochs: int) -> bool:
        """Whether a strategy's trial has been trained as long as its floor asks."""
        return num_epochs >= self.floors.get(strategy, 0)


def _powers(first: int, eta: int, *, below: int) -> Iterator[int]:
    while first < below:
        yield first
        first *= eta
