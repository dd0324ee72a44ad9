"""Going on with an optimiser and averaged weights after parameters have grown."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from trainables.strategies.base import Growth


def adopt(grown: Iterable[Growth], optimizer: torch.optim.Optimizer) -> None:
    """Let the optimiser train the new parameters; what it knew of the old ones is kept, what is new starts at zero.

    AdamW's step count goes on as well, so its correction of young moments does not serve the new entries: their first
    steps are up to three times as large as lr.
    """
    for growth in grown:
        for group in optimizer.param_groups:
            group["params"] = [growth.new if held is growth.old else held for held in group["params"]]
        state = optimizer.state.pop(growth.old, {})
        optimizer.state[growth.new] = {
            name: padded(value, torch.zeros_like(growth.new, dtype=value.dtype))
            if is_like(value, growth.old)
            else value
            for name, value in state.items()
        }


def adopt_average(grown: Iterable[Growth], average: EMAModel, parameters: list[nn.Parameter]) -> None:
    """Let averaged weights follow: what is new starts at its first value.

    Args:
        grown: What changed.
        average: Holds one tensor for each of `parameters`.
        parameters: Before the change, in the average's order.
    """
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    for growth in grown:
        place = places[id(growth.old)]
        average.shadow_params[place] = padded(average.shadow_params[place], growth.new.detach().clone())


def padded(values: Tensor, filling: Tensor) -> Tensor:
    """`filling` with `values` written over the start of every dimension."""
    filling[tuple(slice(0, size) for size in values.shape)] = values
    return filling


def is_like(value: object, parameter: nn.Parameter) -> bool:
    """Whether an optimiser's entry holds one number for each of the parameter's."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0
