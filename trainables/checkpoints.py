"""A trial's training on the disk, whole or not at all: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file
from torch import Tensor

from trainables.datasets.files import partial_folder
from trainables.tensor_files import save_tensors

FORMAT: Final = 3
LACKED: Final[Mapping[int, Mapping[str, Any]]] = {FORMAT: {}, 2: {"under_way": None, "untold": {}}}
"""By format that can be read, the facts that later ones have besides, as they were: format 2 is of ends of epochs alone."""
FOLDER: Final = "checkpoints"
TENSORS, FACTS = "tensors.safetensors", "facts.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training was.

    Attributes:
        tensors: by name, on any device.
        facts: numbers, texts and lists of them by name.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix/`, by the rest of their names."""
        return {name.removeprefix(f"{prefix}/"): t for name, t in self.tensors.items() if name.startswith(f"{prefix}/")}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by names that begin with `prefix/`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def write_checkpoint(trial: Path, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint in place of all earlier ones in a trial's folder, which go when it is on the disk.

    Raises:
        OSError: the disk is full; the earlier one is still there.
    """
    kept, number = trial / FOLDER, max(_numbers(trial), default=-1) + 1
    for left in kept.glob(".*.partial"):  # by a process that was killed; the room is needed now
        shutil.rmtree(left)
    with partial_folder(kept / str(number)) as partial:
        save_tensors(checkpoint.tensors, partial / TENSORS)
        (partial / FACTS).write_text(json.dumps({"format": FORMAT, **checkpoint.facts}))
        for path in (partial / TENSORS, partial / FACTS, partial):
            _sync(path)
    _sync(kept)
    for other in kept.iterdir():
        if other.name != str(number):
            shutil.rmtree(other)


def read_checkpoint(trial: Path) -> Checkpoint | None:
    """The newest whole checkpoint in a trial's folder, or None.

    Raises:
        ValueError: a version of this program wrote it whose format is not among those that can be read.
    """
    if not (numbers := _numbers(trial)):
        return None
    folder = trial / FOLDER / str(max(numbers))
    facts = json.loads((folder / FACTS).read_text())
    if facts["format"] not in LACKED:
        raise ValueError(
            f"`format` of a checkpoint must be one of {', '.join(map(str, LACKED))}, but got {facts['format']}. Go on with "
            f"the version that wrote {folder}, or delete that folder to train from the start."
        )
    return Checkpoint(tensors=load_file(folder / TENSORS), facts={**LACKED[facts["format"]], **facts})


def _numbers(trial: Path) -> list[int]:
    """Of the whole checkpoints of a trial, of which the newest has the highest."""
    return [int(numbered.name) for numbered in (trial / FOLDER).glob("*") if numbered.name.isdecimal()]


def remove_checkpoints(trial: Path) -> None:
    """Free what a trial that has ended kept to go on with."""
    shutil.rmtree(trial / FOLDER, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
