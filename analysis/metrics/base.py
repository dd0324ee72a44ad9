"""What a metric is, and what it accepts as features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.frechet import ReferenceMoments
from analysis.metrics.inputs import as_features

Direction = Literal["min", "max"]


class Reference:
    """Features of real images with whatever metrics derive from them, computed once and kept."""

    def __init__(self, features: ArrayLike) -> None:
        """Check and keep float[n, d] features."""
        self.features: NDArray[np.float64] = as_features(features, "reference")

    @cached_property
    def moments(self) -> ReferenceMoments:
        """Mean and factored covariance."""
        return ReferenceMoments.of(self.features)

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric over features.

    Attributes:
        name: the table key; the reported name adds the extractor, as in `fid_xrv`.
        direction: whether lower ("min") or higher ("max") is better.
        function: the metric of generated and reference features.
    """

    name: str
    direction: Direction
    function: Callable[[ArrayLike, Reference], float]

    def fn(self, generated: ArrayLike, reference: ArrayLike | Reference) -> float:
        """Evaluate the metric.

        Args:
            generated: float[n, d] features of generated images.
            reference: float[m, d] features of real images, or the same kept in a `Reference`.

        Returns:
            A finite number; `direction` says which way is better.
        """
        held = reference if isinstance(reference, Reference) else Reference(reference)
        return self.function(generated, held)

    def reported_name(self, extractor: str) -> str:
        """The name under which a value is reported, for example `fid_mini`."""
        return f"{self.name}_{extractor}"
