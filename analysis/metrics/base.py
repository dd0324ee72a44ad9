"""What a metric is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from analysis.front.pareto import Direction
from analysis.metrics.sets import FeatureSet, as_set

Spread = Literal["absolute", "relative"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric over features.

    Attributes:
        name: the table key; the reported name adds the extractor, as in `fid_xrv`.
        label: what people call it, for tables and plots.
        direction: whether lower ("min") or higher ("max") is better.
        function: the metric of generated and reference features.
        min_images: the fewest images of either set for which it is defined.
        unbiased: whether its expectation is the same at any number of images, so that few estimate what many give.
        bounds: smallest and largest value.
        sees_reference: whether real images enter the value; a diversity looks at generated ones alone.
        spread: how its interval is made from halves, "absolute" or "relative" as in `bootstrap_interval`; None where
            intervals from halves hold the true value less often than they say.
    """

    name: str
    label: str
    direction: Direction
    function: Callable[[FeatureSet, FeatureSet], float]
    min_images: int = 2
    unbiased: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)
    sees_reference: bool = True
    spread: Spread | None = "absolute"

    def fn(self, generated: ArrayLike | FeatureSet, reference: ArrayLike | FeatureSet) -> float:
        """Evaluate the metric.

        Args:
            generated: float[n, d] features of generated images, or a set that keeps what is derived from them.
            reference: float[m, d] features of real images, likewise.

        Returns:
            A finite number; `direction` says which way is better.

        Raises:
            ValueError: the features are not valid, or either set has fewer than `min_images`.
        """
        images, real = as_set(generated, "generated"), as_set(reference, "reference")
        if not self.fits(len(images), len(real)):
            raise ValueError(
                f"`{self.name}` must have at least {self.min_images} images in each set, but got {len(images)} "
                f"generated and {len(real)} real. Evaluate on more images."
            )
        return self.function(images, real)

    def fits(self, num_generated: int, num_reference: int) -> bool:
        """Whether there are enough images for it to be defined."""
        return min(num_generated, num_reference) >= self.min_images

    def reported_name(self, extractor: str) -> str:
        """The name under which a value is reported, for example `fid_mini`."""
        return f"{self.name}_{extractor}"
