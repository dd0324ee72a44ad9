"""The moving average of what trains, kept beside it on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

AT_A_TIME = 2**24
"""Numbers whose differences are in memory together (64 MiB): the differences of all weights would take as much as
these."""


class MovingAverage:
    """An exponential moving average of parameters; its decay grows to the one that is asked for, as diffusers' does.

    Args:
        parameters: what is averaged; it starts at their values.
        decay: share of the average that a step leaves, at most; above 0, below 1.

    Attributes:
        values: one tensor for each parameter, in their order.
        num_steps: that were taken up.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.values = [parameter.detach().clone() for parameter in parameters]
        self.decay, self.num_steps = decay, 0

    @property
    def next_decay(self) -> float:
        """Decay of the step to come: 0 at the first, then (1 + s) / (10 + s) after s steps, at most `decay`."""
        return min((1 + self.num_steps) / (10 + self.num_steps), self.decay) if self.num_steps else 0.0

    @torch.no_grad()
    def step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take up the parameters' values after an optimiser step, many of them in each of three operations."""
        for part in stretches([value.numel() for value in self.values], AT_A_TIME):
            differences = torch._foreach_sub(self.values[part], list(parameters[part]))
            torch._foreach_mul_(differences, 1 - self.next_decay)
            torch._foreach_sub_(self.values[part], differences)
        self.num_steps += 1

    @contextmanager
    def in_place_of(self, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        """Let the parameters have the averages as their values; nothing is copied, and afterwards they have their own again."""
        self._exchange(parameters)
        try:
            yield
        finally:
            self._exchange(parameters)

    def _exchange(self, parameters: Sequence[nn.Parameter]) -> None:
        for place, parameter in enumerate(parameters):
            self.values[place], parameter.data = parameter.data, self.values[place]


def stretches(sizes: Sequence[int], most: int) -> list[slice]:
    """Which neighbours go together so that none of the sums is above `most`, but of what is above it alone."""
    starts, total = [0], 0
    for place, size in enumerate(sizes):
        if total and total + size > most:
            starts, total = [*starts, place], 0
        total += size
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(sizes)], strict=True)]
