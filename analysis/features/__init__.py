"""Feature extractors and their cache. A new extractor is a file and a line of the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from analysis.features.base import FeatureExtractor
from analysis.features.cache import CacheWriteError, FeatureCache, FeatureKey
from analysis.features.mini import load_mini
from analysis.features.xrv import load_xrv
from analysis.names import look_up

EXTRACTORS: dict[str, Callable[[Path | None, str | torch.device], FeatureExtractor]] = {
    "mini": load_mini,
    "xrv": load_xrv,
}


def load_extractor(name: str, *, weights: Path | None = None, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Load a feature extractor.

    Args:
        name: `mini` (bundled) or `xrv` (torchxrayvision's DenseNet-121).
        weights: where its weights are, if not at their usual place.
        device: where to compute.

    Raises:
        ValueError: the name is not known, or the weights do not fit.
        FileNotFoundError: the weights are not there.
    """
    return look_up(EXTRACTORS, name, "extractor")(weights, device)


__all__ = ["EXTRACTORS", "CacheWriteError", "FeatureCache", "FeatureExtractor", "FeatureKey", "load_extractor"]
