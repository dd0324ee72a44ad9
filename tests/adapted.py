"""An adapted base model, as a training leaves it but without one."""

from __future__ import annotations

from typing import Any

import torch

from trainables.base_models.models import DiffusionModels, load_base
from trainables.strategies import Strategy, make_strategy
from trainables.strategies.base import trained_parameters


def adapted(name: str, *, base: str = "mini", spread: float = 0.1, **fields: Any) -> tuple[DiffusionModels, Strategy]:
    """A base with a strategy attached whose parameters are moved at random, the same each time.

    Args:
        name: of the strategy.
        base: that is adapted.
        spread: standard deviation of what is added to each parameter.
        fields: hyperparameters of the strategy.
    """
    models, strategy = load_base(base), make_strategy(name, fields)
    torch.manual_seed(0)
    strategy.attach(models)
    with torch.no_grad():
        for _, parameter in trained_parameters(models):
            parameter.add_(spread * torch.randn_like(parameter))
    return models, strategy
