"""A part of a training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.feeding import TrainingImages


@dataclass(frozen=True)
class Subset:
    """The first images of a split in a fixed shuffled order, the same in every epoch and trial."""

    whole: TrainingImages
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, whole: TrainingImages, max_images: int | None) -> TrainingImages:
        """At most `max_images` of a split; None takes all of it."""
        if max_images is None or max_images >= len(whole):
            return whole
        return cls(whole, np.sort(np.random.default_rng(0).permutation(len(whole))[:max_images]))

    @property
    def fingerprint(self) -> str:
        """Changes with the split and with the size of the part."""
        return f"{self.whole.fingerprint}-first{len(self.rows)}"

    @property
    def prompts(self) -> Sequence[str]:
        """Captions, one an image."""
        return [self.whole.prompts[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Grey images, `uint8[n, H, W]`."""
        return self.whole.images(self.rows[indices])
