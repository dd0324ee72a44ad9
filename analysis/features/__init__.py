"""Feature extractors and their cache. A new extractor is a file and a line of the table.

Importing this package does not import torch, so that a configuration's names are checked before anything slow happens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analysis.checks import look_up
from analysis.features.cache import CacheWriteError, FeatureCache, FeatureKey

if TYPE_CHECKING:
    import torch

    from analysis.features.base import FeatureExtractor

Loader = Callable[[str, "Path | None", "str | torch.device"], "FeatureExtractor"]
"""Makes an extractor of its name, the place of its weights where it is not the usual one, and a device."""


def _mini(name: str, weights: Path | None, device: str | torch.device) -> FeatureExtractor:
    from analysis.features.mini import load_mini

    return load_mini(weights, device)


def _xrv(model: str, name: str, weights: Path | None, device: str | torch.device) -> FeatureExtractor:
    from analysis.features.xrv import load_xrv

    return load_xrv(name, model, weights, device)


def _inception(name: str, weights: Path | None, device: str | torch.device) -> FeatureExtractor:
    from analysis.features.inception import load_inception

    return load_inception(name, weights, device)


def _hub(hub_id: str, name: str, weights: Path | None, device: str | torch.device) -> FeatureExtractor:
    from analysis.features.hub import load_hub

    return load_hub(name, hub_id, weights, device)


EXTRACTORS: Final[dict[str, Loader]] = {
    "mini": _mini,
    "xrv": partial(_xrv, "densenet121-res224-all"),
    "xrv-nih": partial(_xrv, "densenet121-res224-nih"),
    "xrv-pc": partial(_xrv, "densenet121-res224-pc"),
    "xrv-chex": partial(_xrv, "densenet121-res224-chex"),
    "xrv-rsna": partial(_xrv, "densenet121-res224-rsna"),
    "xrv-mimic_nb": partial(_xrv, "densenet121-res224-mimic_nb"),
    "xrv-mimic_ch": partial(_xrv, "densenet121-res224-mimic_ch"),
    "xrv-resnet50": partial(_xrv, "resnet50-res512-all"),
    "inception": _inception,
    "clip": partial(_hub, "openai/clip-vit-large-patch14"),
    "rad_dino": partial(_hub, "microsoft/rad-dino"),
}
"""CLIP is the ViT-L/14: the picture side of the very model whose text side Stable Diffusion 1.5 listens to."""


def load_extractor(name: str, *, weights: Path | None = None, device: str | torch.device = "cpu") -> FeatureExtractor:
    """Load a feature extractor.

    Args:
        name: a name of the table.
        weights: where its weights are, if not at their usual place: a file, or for `mini`, `clip` and `rad_dino` a folder.
        device: where to compute.

    Raises:
        ValueError: the name is not known, or the weights do not fit.
        FileNotFoundError: the weights are not there.
    """
    return look_up(EXTRACTORS, name, "extractor")(name, weights, device)


def split_metric(column: str) -> tuple[str, str]:
    """What a column measures and by which extractor: ("fid", "rad_dino") for `fid_rad_dino`, (column, "") for `loss`."""
    for extractor in EXTRACTORS:
        if column.endswith(f"_{extractor}"):
            return column.removesuffix(f"_{extractor}"), extractor
    return column, ""


__all__ = [
    "EXTRACTORS",
    "CacheWriteError",
    "FeatureCache",
    "FeatureKey",
    "load_extractor",
    "split_metric",
]
