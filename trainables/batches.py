"""Which images each worker trains on at each step: every image once an epoch, split exactly once over the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of one batch.

    `weight` makes the mean over workers of `weight * mean loss` the mean over the whole batch, however uneven the parts.
    A worker without an image of a short last batch computes one image at weight 0, so that all workers take every step.

    Attributes:
        indices: int64[b], rows of the images in the training split, b >= 1.
        weight: number of workers times this part's share of the batch; 1 where all parts are equal, 0 for a worker
            without an image.
        first: place of the first image in the batch, 0-based; the others follow it.
    """

    indices: NDArray[np.int64]
    weight: float
    first: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlan:
    """Batches of `batch_size` images over all workers, reshuffled every epoch from `seed`.

    Attributes:
        num_images: images of the training split, each seen once an epoch.
        batch_size: images of one optimiser step, over all workers.
        num_workers: processes that share each batch.
        seed: draws the order, which differs between epochs and not between workers.
        most_images: images after which the training ends: the batch in which so many have been seen is cut there.
    """

    num_images: int
    batch_size: int
    num_workers: int = 1
    seed: int = 0
    most_images: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one epoch, the last of which may have a smaller batch."""
        return -(-self.num_images // self.batch_size)

    def images_after(self, step: int) -> int:
        """How many images the first `step` steps see, over all workers."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        seen = epochs * self.num_images + min(steps * self.batch_size, self.num_images)
        return seen if self.most_images is None else min(seen, self.most_images)

    def steps_for(self, num_images: int) -> int:
        """How many steps it takes to see so many images, the last of them perhaps with a smaller batch."""
        epochs, images = divmod(num_images, self.num_images)
        return epochs * self.steps_per_epoch + -(-images // self.batch_size)

    def epoch(self, epoch: int, worker: int) -> Iterator[Share]:
        """The shares of `worker` (0-based) in epoch `epoch`."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
        if self.most_images is not None:
            order = order[: max(0, self.most_images - epoch * self.num_images)]
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            parts = np.array_split(batch, self.num_workers)
            part, first = parts[worker], sum(map(len, parts[:worker]))
            weight = self.num_workers * len(part) / len(batch)
            yield Share(part, weight, first) if len(part) else Share(batch[:1], weight)


def micro_batches(share: Share, size: int) -> list[tuple[slice, float]]:
    """The parts of `size` images of a share, the last of what is left: which of its images, and the part's weight.

    The weighted mean losses of the parts add up to the share's.
    """
    count = len(share.indices)
    bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
    return [(slice(start, end), share.weight * (end - start) / count) for start, end in bounds]


def filled(part: slice, size: int) -> slice | NDArray[np.int64]:
    """A part's images, and where they are fewer than `size` its last one again and again; these must not count."""
    if part.stop - part.start >= size:
        return part
    rows: NDArray[np.int64] = np.minimum(np.arange(part.start, part.start + size), part.stop - 1)
    return rows
