"""A set of images as metrics see it: features, and what was derived from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.metrics.inputs import Floats, as_floats

BLOCK_ROWS = 1024
"""Rows that are worked on at a time where all are set against all: 8 MiB at 1024 features, as are their products."""
SUM_ROWS = 2560
"""The same where d x d sums are taken, 20 MiB at 1024 features; fewer rows would cost more additions of the sums."""

P = ParamSpec("P")
T = TypeVar("T")


class FeatureSet:
    """Features of a set of images; whatever metrics derive from them is computed once and kept.

    Attributes:
        features: float32 or float64[n, d], not copied; metrics read them in float64 by blocks.
        parts: disjoint sets that together are this one, whose sums need not be taken again; empty where there are none.
    """

    def __init__(self, features: ArrayLike, name: str = "features", *, parts: Sequence[FeatureSet] = ()) -> None:
        """Check and keep real[n, d] features, called `name` in messages."""
        self.features: Floats = as_floats(features, name)
        self.parts = tuple(parts)
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.features)

    def __reduce__(self) -> tuple[type[FeatureSet], tuple[Floats]]:
        return FeatureSet, (self.features,)

    @property
    def dim(self) -> int:
        """Number of features d."""
        return int(self.features.shape[1])

    def rows(self) -> NDArray[np.float64]:
        """All features in float64."""
        return self.features.astype(np.float64, copy=False)

    def blocks(self, num_rows: int = BLOCK_ROWS) -> Iterator[NDArray[np.float64]]:
        """The features in float64, at most that many rows at a time."""
        for start in range(0, len(self), num_rows):
            yield self.features[start : start + num_rows].astype(np.float64, copy=False)

    def derived(self, function: Callable[Concatenate[FeatureSet, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function makes of this set; called once for the same arguments, which must be hashable.

        Args:
            function: of a set and of the arguments.
            *args, **kwargs: what else it takes.
        """
        key = (function, args, tuple(sorted(kwargs.items())))
        if key not in self._derived:
            self._derived[key] = function(self, *args, **kwargs)
        value: T = self._derived[key]
        return value


def as_set(features: ArrayLike | FeatureSet, name: str) -> FeatureSet:
    """The set itself, or one of float[n, d] features."""
    return features if isinstance(features, FeatureSet) else FeatureSet(features, name)
