"""Films that are smaller than any that a source gives, for tests of training: none depends on how many pixels there are."""

from __future__ import annotations

from trainables.datasets.phantom import PhantomSource

SIDE_PX = 32
"""Half the side of the mini base's films; a step on them takes a third of the time."""


class SmallPhantom(PhantomSource):
    """The phantom at 32 px."""

    def __init__(self, *, num_patients: int, seed: int) -> None:
        super().__init__(num_patients=num_patients, seed=seed)
        self.resolution_px = SIDE_PX
