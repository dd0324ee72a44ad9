"""Full-size deltas: what the source paper's public code calls DiffFit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Strategy

Weighted = nn.Linear | nn.Conv2d


class DeltaLayer(nn.Module):
    """A frozen linear or convolution layer with a trained change of its weight, y = (W0 + D) x + b; D starts at 0.

    Args:
        base: the layer that is adapted.
    """

    reads_base_in_full = True

    def __init__(self, base: Weighted) -> None:
        super().__init__()
        self.base = base
        self.delta = nn.Parameter(torch.zeros_like(base.weight, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output."""
        output: Tensor
        if isinstance(self.base, nn.Conv2d):
            output = self.base._conv_forward(x, self.weight(), self.base.bias)
        else:
            output = functional.linear(x, self.weight(), self.base.bias)
        return output

    def weight(self) -> Tensor:
        """The adapted weight, in the base layer's dtype."""
        return self.base.weight + self.delta.to(self.base.weight.dtype)

    @torch.no_grad()
    def folded(self) -> Weighted:
        """The plain layer that computes the same; the base's own weight tensor is not written to."""
        self.base.weight = nn.Parameter(self.weight(), requires_grad=False)
        return self.base


@dataclass(frozen=True, kw_only=True)
class DeltaFull(Strategy):
    """A full-size change of the weight of every linear and convolution layer of the U-Net, starting at zero.

    This is not DiffFit (the strategy `difffit`), although the public code of "Pixels under Pressure" trained it under
    that name. It is full fine-tuning of these weights with one difference: weight decay pulls the change to zero, and
    so the weights to the base's.

    Source: the public code of TehraniNasab et al. 2025, "Pixels under Pressure".
    """

    name = "delta_full"

    def inject(self, models: DiffusionModels) -> None:
        """Wrap the layers.

        Raises:
            ValueError: the models are adapted already.
        """
        expect(
            not any(True for _ in delta_layers(models.unet)),
            "`models` must be a base without deltas",
            "one that is adapted already",
            "Attach to `models.fresh()` of the base.",
        )
        layers = [(path, module) for path, module in models.unet.named_modules() if isinstance(module, Weighted)]
        for path, layer in layers:
            models.unet.set_submodule(path, DeltaLayer(layer))

    def merged(self, models: DiffusionModels) -> None:
        """Fold the deltas into the weights, in place; the U-Net has its original modules and keys again."""
        for path, layer in list(delta_layers(models.unet)):
            models.unet.set_submodule(path, layer.folded())


def delta_layers(module: nn.Module) -> Iterator[tuple[str, DeltaLayer]]:
    """All layers with a delta inside a module, with their paths."""
    for path, layer in module.named_modules():
        if isinstance(layer, DeltaLayer):
            yield path, layer
