"""How classifiers are trained: ours, and the one of CheXGenBench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analysis.films.labelled import augment, mirror_and_turn


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate of an optimiser changes.

    Attributes:
        optimizer: whose.
        after_step: what is done after each step.
        after_epoch: what is done after each epoch, with its validation loss.
    """

    optimizer: torch.optim.Optimizer
    after_step: Callable[[], None] = lambda: None
    after_epoch: Callable[[float], None] = lambda loss: None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way of training.

    Attributes:
        augment: batch uint8[n, H, W] and random numbers to float32[n, H, W].
        schedule: network, learning rate, weight decay and number of steps to the optimiser with its schedule.
        balanced: whether a positive counts as often as there are negatives for each of it.
        whole_batches: whether films that do not fill a batch wait for another epoch.
    """

    augment: Callable[[Tensor, torch.Generator], Tensor]
    schedule: Callable[[nn.Module, float, float, int], Schedule]
    balanced: bool
    whole_batches: bool


def _one_cycle(network: nn.Module, peak_lr: float, weight_decay: float, num_steps: int) -> Schedule:
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_lr, weight_decay=weight_decay)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=max(num_steps, 2))
    return Schedule(optimizer=optimizer, after_step=lr_schedule.step)


def _plateau(network: nn.Module, lr: float, weight_decay: float, num_steps: int) -> Schedule:
    """Adam, whose decay goes into the gradient, at a tenth of its rate after three epochs without a lower loss."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    lr_schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2)
    return Schedule(optimizer=optimizer, after_epoch=lr_schedule.step)


RECIPES = {
    "one_cycle": Recipe(augment=augment, schedule=_one_cycle, balanced=True, whole_batches=True),
    "chexgenbench": Recipe(augment=mirror_and_turn, schedule=_plateau, balanced=False, whole_batches=False),
}
