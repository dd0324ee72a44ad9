"""An extractor that knows how much it was used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.features.base import FeatureExtractor
from analysis.features.mini import load_mini


class CountingExtractor(FeatureExtractor):
    """The bundled extractor, with a memory of how many images it was given."""

    name = "mini"

    def __init__(self) -> None:
        self._own = load_mini(None, "cpu")
        self.dim, self.weights_hash, self.preprocessing = self._own.dim, self._own.weights_hash, self._own.preprocessing
        self.counts: list[int] = []

    def extract(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.counts.append(len(images))
        return self._own.extract(images)
