"""What the checkpoints of a sweep take of the disk, and whether it has that room."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from search_spaces import SEARCH_SPACES
from sweep.config import ConfigError, SweepConfig
from sweep.search.costs import Limits, first_and_last
from trainables.checkpoints import FOLDER
from trainables.datasets.files import standing_folder

BYTES_PER_WEIGHT: Final = 4
"""Of what is trained, in whatever precision it computes."""
GIB: Final = 2**30


def trials_at_once(config: SweepConfig) -> int:
    """The most trials that train at the same time."""
    return min(config.compute.concurrent_trials, config.search.num_trials)


def checkpoint_bytes(config: SweepConfig, num_parameters: float) -> float:
    """A trial's checkpoint: of every weight the weight itself, AdamW's two moments and the average if there is one."""
    copies = 3 if config.training.ema_decay is None else 4
    return copies * num_parameters * BYTES_PER_WEIGHT


def checkpoints_gib(config: SweepConfig, at_once: int, num_parameters: float) -> float:
    """What trials keep to go on with, twice, as a checkpoint goes when the next one is on the disk.

    Args:
        config: of the sweep.
        at_once: trials.
        num_parameters: that each trains.
    """
    return 2 * at_once * checkpoint_bytes(config, num_parameters) / GIB


def require_room(config: SweepConfig, out: Path, strategies: Sequence[str], limits: Limits) -> None:
    """Refuse a disk without room for the checkpoints of the trials at once, if these are the largest that there may be.

    Args:
        config: of the sweep.
        out: the run directory; what a sweep that goes on has kept there already is room.
        strategies: that trials may have.
        limits: knows what configurations cost.

    Raises:
        ConfigError: there is less room.
    """
    space, fixed = SEARCH_SPACES[config.search.space], config.search.hyperparameters
    sizes = {
        name: max(
            limits.costs.of(choice, operations=False)["trainable_parameters"]
            for choice in first_and_last(space, name, fixed)
        )
        for name in strategies
    }
    largest = max(sizes, key=lambda name: sizes[name])
    at_once, each = trials_at_once(config), checkpoint_bytes(config, sizes[largest]) / GIB
    needed, free = checkpoints_gib(config, at_once, sizes[largest]), _free_gib(out)
    if needed <= free:
        return
    raise ConfigError(
        f"`disk` of the run directory must have room for what trials go on from, {at_once} at once x 2 x {each:.2g} GiB = "
        f"{needed:.2g} GiB ({largest} trains {sizes[largest]:,.0f} parameters), but got {free:.2g} GiB at {out}. Free "
        "space there, give an --out on a larger disk, lower compute.concurrent_trials, or leave that strategy out of "
        "search.strategies."
    )


def _free_gib(out: Path) -> float:
    kept = sum(file.stat().st_size for file in (out / "trials").glob(f"*/{FOLDER}/*/*"))
    return (shutil.disk_usage(standing_folder(out / FOLDER)).free + kept) / GIB
