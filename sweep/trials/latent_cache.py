"""Where latents and prompt states are kept: with the data, so that sweeps and machines share them."""

from __future__ import annotations

import os
from pathlib import Path

from analysis.run_folder import CACHE
from sweep.config import SweepConfig


def latent_cache(config: SweepConfig, out: Path) -> Path:
    """The folder that the configuration names, or one beside the prepared data, or if need be the run directory's.

    Args:
        config: with absolute folders.
        out: the run directory.
    """
    if config.cache.path is not None:
        return config.cache.path
    prepared = config.data.path
    if prepared is None:  # the films are drawn for this run alone
        return out / CACHE
    beside = prepared.with_name(f"{prepared.name}.cache")
    return beside if os.access(beside if beside.exists() else beside.parent, os.W_OK) else out / CACHE
