"""Tensors as safetensors files, of which the disk's faults are `OSError`s as they are of every other file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by their names.

    Args:
        tensors: on any device.
        file: where to; its folder is there.
        metadata: texts that the file's head holds.

    Raises:
        OSError: the disk refuses; by safetensors' own error a trial would count as failed by its own fault.
    """
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(copies, file, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{error}: {file}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
