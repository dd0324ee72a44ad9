"""Precision and memory layout in which a device samples: part of what generated films depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

import torch

from trainables.naming import unknown_name
from trainables.settings import Precision

HALF: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Torch's types by the accelerator's names of mixed precision."""


@dataclass(frozen=True)
class Numerics:
    """How U-Net and autoencoder compute samples.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`; of weights and activations, while the solver's latents stay in float32.
        channels_last: whether an image's channels lie beside each other in memory, as tensor cores take them.
    """

    precision: str = "fp32"
    channels_last: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        return HALF.get(self.precision, torch.float32)

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of convolutions' weights and of what they are given."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def label(self) -> str:
        """Its name in keys and records, such as `bf16-channels_last`."""
        return f"{self.precision}-channels_last" if self.channels_last else self.precision


FULL: Final = Numerics()
"""Float32 in torch's usual layout: what bases are loaded in."""


def half_of_device() -> str:
    """The half precision in which the GPU computes best: bf16 where it has that, which reaches as far as float32."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def numerics_on(device: torch.device, precision: str = "auto") -> Numerics:
    """What a device samples in; a GPU in half precision keeps channels last.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    if precision == "auto":
        precision = half_of_device() if device.type == "cuda" else "fp32"
    return Numerics(precision, channels_last=device.type == "cuda" and precision in HALF)
