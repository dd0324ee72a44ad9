"""What an epoch of training measures of itself, while it is under way and at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor


class DivergedError(RuntimeError):
    """The loss stopped being a finite number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """What one epoch of training measured; evaluation is not in its time."""

    epoch: int
    """Number of the epoch, from 0."""
    loss: float
    """Mean over the epoch's images; lower is better."""
    lr: float
    """Learning rate of the epoch's last step."""
    epoch_s: float
    """Seconds of training, without evaluation and checkpoints."""
    images_per_s: float
    """Training images a second, over all workers."""
    peak_memory_gib: float
    """The most memory that was in use, in GiB: the GPU's, or on a CPU the process's."""
    num_workers: int
    """Workers that shared the epoch; after a death, an elastic trial may go on with fewer."""
    trainable_parameters: int
    """How many numbers the adapter consists of after the epoch."""
    mixed_precision: str
    """The numbers in which the epoch was computed: what `auto` means differs between devices."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


@dataclass(kw_only=True, slots=True)
class EpochUnderWay:
    """What an epoch has measured so far: with it, a training that was suspended goes on within the epoch."""

    epoch: int
    """Number of the epoch, from 0."""
    first_step: int
    """Steps of the training before the epoch."""
    losses: list[Tensor] = field(default_factory=list)
    """Of each step, the mean over its images; of this worker's images until it is taken over all workers."""
    lr: float = 0.0
    """Learning rate of the last step."""
    seconds: float = 0.0
    """That training has taken in the epoch."""
    peak_memory_gib: float = 0.0
    """The most memory that was in use, in GiB."""

    def facts(self) -> dict[str, Any]:
        """All but the losses, for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "losses"}

    @classmethod
    def of(cls, facts: Mapping[str, Any], losses: Tensor) -> Self:
        """What a checkpoint has of it: its facts, and float32[k], the losses of k steps."""
        return cls(**facts, losses=list(losses))


def finite_mean(losses: Sequence[Tensor], where: str) -> float:
    """The mean loss of some steps.

    Args:
        losses: at least one.
        where: in the training they are.

    Raises:
        DivergedError: it is not finite.
    """
    mean = float(torch.stack(list(losses)).mean())
    if not math.isfinite(mean):
        raise DivergedError(
            f"`loss` must stay finite, but got {mean} {where}. Lower the learning rate, or train without fp16."
        )
    return mean
