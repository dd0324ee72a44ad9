"""What a trial tells after each epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
