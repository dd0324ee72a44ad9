"""The tensors of a training batch, at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.draws import EpochDraws
from trainables.feeding import BatchFeeder

CPU = torch.device("cpu")


def batch_of(feeder: BatchFeeder, rows: NDArray[np.int64], draws: EpochDraws) -> dict[str, Tensor]:
    """What the loss takes of int64[n] rows of the split's images, on the CPU."""
    return feeder.device_batch(feeder.host_batch(rows, draws), CPU)
