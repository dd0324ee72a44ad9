"""What training goes on from: the state of weights, optimiser, average, lr schedule, scaler and strategy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.checkpoints import Checkpoint
from trainables.strategies.base import Strategy, load_trained, trained_parameters

log = logging.getLogger(__name__)


def restore_weights(models: DiffusionModels, strategy: Strategy, checkpoint: Checkpoint) -> None:
    """Give freshly attached models the shapes and values of a checkpoint, and the strategy what it kept.

    Called before an optimiser is made of the parameters.

    Args:
        models: with the strategy attached.
        strategy: the one that trains.
        checkpoint: what the trial goes on from.

    Raises:
        ValueError: the checkpoint's weights do not fit.
    """
    weights = checkpoint.under("weights")
    strategy.fit_to(models, weights)
    load_trained(models, weights)
    strategy.resume(models, checkpoint.under("strategy"))


def weights_and_strategy(models: DiffusionModels, strategy: Strategy) -> dict[str, dict[str, Tensor]]:
    """What `restore_weights` takes, by prefix."""
    return {
        "weights": {path: parameter.detach() for path, parameter in trained_parameters(models)},
        "strategy": strategy.training_state(models),
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """An optimiser's tensors by `path:name`, such as `unet.conv_in.bias:exp_avg`."""
    return {
        f"{path}:{name}": value
        for path, parameter in parameters.items()
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    *,
    tensors: Mapping[str, Tensor],
    lrs: Sequence[float],
) -> None:
    """Let an optimiser of the same parameters go on from `optimizer_tensors`, at the learning rates of its groups.

    Args:
        optimizer: of the parameters, new.
        parameters: trained parameters by path.
        tensors: the optimiser's state by PATH:NAME, as `optimizer_tensors` gives it.
        lrs: learning rate of each group.
    """
    of: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, what = name.rpartition(":")
        of.setdefault(path, {})[what] = tensor
    paths = {id(parameter): path for path, parameter in parameters.items()}
    plain = optimizer.state_dict()
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in plain["param_groups"] for number in group["params"]]
    state: dict[int, dict[str, Any]] = {
        number: of[paths[id(parameter)]]
        for number, parameter in zip(numbers, ordered, strict=True)
        if paths[id(parameter)] in of
    }
    optimizer.load_state_dict({**plain, "state": state})
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        group["lr"] = lr


def restore_scaler(accelerator: Accelerator, facts: Mapping[str, Any]) -> None:
    """Give the scaler of fp16 its state, and say so where the precision is another one now."""
    before, now = facts["mixed_precision"], accelerator.mixed_precision
    if before != now:
        log.warning(
            "training goes on in mixed precision %s, as the device here has it, where it was %s until epoch %d; name "
            "one in training.mixed_precision to have it everywhere.",
            now,
            before,
            facts["next_epoch"],
        )
    if accelerator.scaler is not None and facts["scaler"]:
        accelerator.scaler.load_state_dict(facts["scaler"])
