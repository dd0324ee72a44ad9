"""A device's memory: what it holds from the start, what is given back, and how much was held at most."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from trainables.micro_batches import NotEnoughMemoryError


def forget_earlier_trials() -> None:
    """Give back the accelerator's memory that trials before this one held in the same process.

    Optimiser and lr schedule refer to each other, so that Python frees a trial's weights whenever it collects cycles
    next; until then the accelerator would hold two trials, and the second one's peak memory would count both.
    """
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def room_bytes(device: torch.device) -> int:
    """How much of a device's own memory the data may take for good: a quarter of what is free there."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 0


def give_back_memory(device: torch.device) -> None:
    """Let what nothing refers to be had again in pieces of any size, and the peak be measured anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def hold_moments(optimizer: torch.optim.Optimizer) -> None:
    """Let AdamW have the moments that its first step would make, so that what fits before that step fits after it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not optimizer.state[parameter]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device if group["fused"] else None),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }


@contextmanager
def expected_to_fit(what: str) -> Iterator[None]:
    """Name what was computed where memory runs out in a block that no smaller micro-batch would help.

    Raises:
        NotEnoughMemoryError: it did.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemoryError(
            f"`{what}` must fit into the device's memory beside the weights, but got none left for it. Train fewer "
            "parameters, without training.ema_decay, or with less beside it on the device."
        ) from error


class MemoryWatch:
    """Peak memory of a stretch of work: allocated on the accelerator, else this process's resident memory."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._on_cuda = device, device.type == "cuda"
        self._process, self._peak_bytes = psutil.Process(), 0
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Look at the memory now; the accelerator keeps its own peak."""
        if not self._on_cuda:
            self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)

    def peak_gib(self) -> float:
        """The largest seen, in GiB."""
        peak = torch.cuda.max_memory_allocated(self._device) if self._on_cuda else self._peak_bytes
        return float(peak / 2**30)
