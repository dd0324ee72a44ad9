"""The device that a trial computes on, and the precision that it computes in."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from trainables.numerics import half_of_device


def new_accelerator(mixed_precision: str) -> Accelerator:
    """An Accelerator for this trial; a reused process may have had another precision before.

    Args:
        mixed_precision: `no`, `fp16`, `bf16`, or `auto`: bf16 on a GPU that has it, fp16 on one that has not, else none.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(mixed_precision=choose_precision(mixed_precision), cpu=not torch.cuda.is_available())


def choose_precision(setting: str) -> str:
    """What `auto` means on this device."""
    if setting != "auto":
        return setting
    return half_of_device() if torch.cuda.is_available() else "no"
