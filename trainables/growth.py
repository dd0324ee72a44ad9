"""Going on with an optimiser and averaged weights after parameters have grown."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainables.averages import MovingAverage
from trainables.strategies.base import Growth

SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq")
"""AdamW's names of the moments that are means of squares."""


def adopt(grown: Iterable[Growth], optimizer: torch.optim.Optimizer) -> None:
    """Let the optimiser train the new parameters; what it knew of the old ones is kept.

    AdamW's step count goes on as well, so its correction of young moments does not serve the new entries. Their first
    moment starts at zero and their second at the mean of the old entries' in the same parameter: from zero it would be
    too small for many steps, and the steps several times lr.
    """
    for growth in grown:
        for group in optimizer.param_groups:
            group["params"] = [growth.new if parameter is growth.old else parameter for parameter in group["params"]]
        state = optimizer.state.pop(growth.old, {})
        optimizer.state[growth.new] = {
            name: padded(value, new_moment(name, value, growth.new)) if is_like(value, growth.old) else value
            for name, value in state.items()
        }


def new_moment(name: str, old: Tensor, new: nn.Parameter) -> Tensor:
    """What a grown parameter's new entries start at: the old ones' mean where they are squares, else zero.

    Args:
        name: the optimiser's name of the moment, such as `exp_avg_sq`.
        old: its values until now.
        new: the grown parameter, whose shape the moment takes.
    """
    value = old.mean() if name in SECOND_MOMENTS else old.new_zeros(())
    return value.expand(new.shape).clone()


def adopt_average(grown: Iterable[Growth], average: MovingAverage, parameters: list[nn.Parameter]) -> None:
    """Let averaged weights follow: what is new starts at its first value.

    Args:
        grown: what changed.
        average: holds one tensor for each of `parameters`.
        parameters: before the change, in the average's order.
    """
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    for growth in grown:
        place = places[id(growth.old)]
        average.values[place] = padded(average.values[place], growth.new.detach().clone())


def padded(values: Tensor, filling: Tensor) -> Tensor:
    """`filling` with `values` written over the start of every dimension."""
    filling[tuple(slice(0, size) for size in values.shape)] = values
    return filling


def is_like(value: object, parameter: nn.Parameter) -> bool:
    """Whether an optimiser's entry holds one number for each of the parameter's."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0
