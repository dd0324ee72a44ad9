"""How many images a device computes at a time: what the settings say, or the most that its memory holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

AUTO: Literal["auto"] = "auto"


class NotEnoughMemoryError(RuntimeError):
    """A step does not fit into the device's memory."""


class MicroBatch:
    """Finds the largest micro-batch that fits, by trying: the whole, ever smaller ones until one fits, then between.

    Only sizes that differ in the number of micro-batches they make are tried.

    Args:
        sizes: those to choose from, the largest first; at least one.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        # Places in `sizes`. What is beyond both ends is not known, but where there is no choice nothing is left to find.
        self._too_large, self._fitting = -1, len(sizes) if len(sizes) > 1 else 0

    @property
    def size(self) -> int:
        """The size to try next, or once it is settled the one to stay with."""
        return self._sizes[self._place]

    @property
    def is_settled(self) -> bool:
        """Whether the next larger size is known not to fit."""
        return self._fitting - self._too_large == 1 and self._fitting < len(self._sizes)

    @property
    def progress(self) -> dict[str, Any]:
        """What is known so far, for `go_on` and for JSON: the place in `sizes` of the one that fits, and `sizes`."""
        return {"sizes": list(self._sizes), "fitting": self._fitting}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Start at what fitted in another search, and try one size more: there may be more room by now.

        Of other sizes, as another number of workers has them, nothing is taken up; nor where this search has found
        something by itself.
        """
        if progress["sizes"] == list(self._sizes) and progress["fitting"] < len(self._sizes) == self._fitting:
            self._fitting = progress["fitting"]
            self._too_large = max(-1, self._fitting - 2)

    @property
    def _place(self) -> int:
        last = len(self._sizes) - 1
        if self.is_settled:
            return self._fitting
        if self._fitting <= last:
            return (self._too_large + self._fitting + 1) // 2
        return min(max(self._too_large + 1, 2 * self._too_large), last)

    def fitted(self, num_images: int) -> None:
        """Note that so many images of one micro-batch, in the size to try, were computed."""
        if num_images >= self.size:
            self._fitting = self._place

    def failed(self) -> None:
        """Note that the size to try did not fit.

        Raises:
            NotEnoughMemoryError: there is no smaller one.
        """
        self._too_large = self._place
        if self._too_large >= self._fitting:  # what fitted once, as memory was emptier
            self._fitting = len(self._sizes)
        if self._too_large == len(self._sizes) - 1:
            raise NotEnoughMemoryError(
                f"`training.micro_batch` must fit into the device's memory, but got {self.size}, which does not. Lower it "
                "or set it to auto; where not even one image fits, train fewer parameters, in half precision or with less "
                "beside it on the device."
            )


_searches: dict[Hashable, MicroBatch] = {}
"""The last search of this process for each shape of a training."""


def micro_batch_for(setting: int | Literal["auto"], num_images: int, shape: Hashable | None) -> MicroBatch:
    """The size of the micro-batches of a training.

    Args:
        setting: of `training.micro_batch`.
        num_images: that a worker computes in each step, at least 1.
        shape: what memory depends on beside their number; a later training of the same shape in this process starts from
            what the last one found. None: neither is what was found used, nor what will be kept.
    """
    if setting != AUTO:
        return MicroBatch((min(setting, num_images),))
    search = MicroBatch(distinct_sizes(num_images))
    if shape is not None:
        if (last := _searches.get((shape, num_images))) is not None:
            search.go_on(last.progress)
        _searches[shape, num_images] = search
    return search


def distinct_sizes(num_images: int) -> tuple[int, ...]:
    """The smallest size for each number of micro-batches that so many images can make, the largest first."""
    sizes = {-(-num_images // parts) for parts in range(1, num_images + 1)}
    return tuple(sorted(sizes, reverse=True))
