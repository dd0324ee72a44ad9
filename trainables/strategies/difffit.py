"""DiffFit: biases, norms, and new vectors that scale what attention and feed-forward layers give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Sizes, Strategy
from trainables.strategies.low_rank import ATTENTION
from trainables.strategies.norm import NORM_LAYERS

BLOCK_OUTPUTS = (".attn1.to_out.0", ".attn2.to_out.0", ".ff.net.2")
"""The last layers of what a transformer block adds to its input: to scale their outputs is to scale the block's."""


class ScaledLinear(nn.Module):
    """A linear layer whose outputs are scaled: y = gamma_block * gamma * (W x + b); each gamma starts at 1.

    Args:
        base: the layer that is scaled.
        gammas: which of `gamma_block` and `gamma` to have; one that is not there counts as 1.

    Source: Xie et al. 2023, "DiffFit".
    """

    def __init__(self, base: nn.Linear, gammas: tuple[str, ...]) -> None:
        super().__init__()
        self.base = base
        self.gammas = gammas
        for name in gammas:
            ones = torch.ones(base.out_features, device=base.weight.device, dtype=torch.float32)
            self.register_parameter(name, nn.Parameter(ones))

    def scale(self) -> Tensor:
        """The product of the gammas, float32[out]."""
        return torch.stack([self.get_parameter(name) for name in self.gammas]).prod(0)

    def forward(self, x: Tensor) -> Tensor:
        """The scaled output, in the base layer's dtype."""
        output: Tensor = self.base(x)
        # The product is rounded, not the scale: bfloat16 would move that in steps of 0.8 % for a whole channel.
        return (output * self.scale()).to(output.dtype)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain linear layer that computes the same; the base's own tensors are not written to."""
        scale = self.scale()
        weight, bias = self.base.weight, self.base.bias
        self.base.weight = nn.Parameter((scale[:, None] * weight).to(weight.dtype), requires_grad=False)
        if bias is not None:
            self.base.bias = nn.Parameter((scale * bias).to(bias.dtype), requires_grad=False)
        return self.base


@dataclass(frozen=True, kw_only=True)
class DiffFit(Strategy):
    """Every bias and norm of the U-Net, and new scales on what its transformer blocks' layers give; all fold away.

    Gammas and the norms' scales are not decayed: weight decay would pull them, and with them the base's weights,
    towards zero.

    Attributes:
        attention_gammas: scale query, key, value and output of each attention too, and not only what the blocks add.

    Source: Xie et al. 2023, "DiffFit: Unlocking Transferability of Large Diffusion Models via Simple
    Parameter-Efficient Fine-Tuning".
    """

    name = "difffit"
    sized: ClassVar[Sizes] = {"attention_gammas": (True, False)}

    attention_gammas: bool = True

    def __post_init__(self) -> None:
        is_choice = isinstance(self.attention_gammas, bool)
        expect(is_choice, "`attention_gammas` must be true or false", repr(self.attention_gammas), "Try true.")

    def inject(self, models: DiffusionModels) -> None:
        """Let biases and norms train, and scale the blocks' layers.

        Raises:
            ValueError: the models are adapted already, or the U-Net has no transformer block.
        """
        expect(
            not any(True for _ in scaled_layers(models.unet)),
            "`models` must be a base without scaled layers",
            "one that is adapted already",
            "Attach to `models.fresh()` of the base.",
        )
        targets = list(self.targets(models.unet))
        expect(
            bool(targets),
            "`difffit` must find a transformer block's layers in the U-Net",
            f"none in {models.base.name!r}",
            "Choose a base with attention, or bitfit.",
        )
        for path, linear, gammas in targets:
            models.unet.set_submodule(path, ScaledLinear(linear, gammas))
        self._train_biases_and_norms(models.unet)

    def _train_biases_and_norms(self, unet: nn.Module) -> None:
        for module in unet.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or isinstance(module, NORM_LAYERS):
                    parameter.requires_grad_(True)

    def targets(self, unet: nn.Module) -> Iterator[tuple[str, nn.Linear, tuple[str, ...]]]:
        """The layers that are scaled: path, layer, and which gammas it gets."""
        for path, module in unet.named_modules():
            block = ("gamma_block",) if path.endswith(BLOCK_OUTPUTS) else ()
            attention = ("gamma",) if self.attention_gammas and path.endswith(ATTENTION) else ()
            if isinstance(module, nn.Linear) and (block or attention):
                yield path, module, (*block, *attention)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """Biases and the norms' shifts in one group; gammas and the norms' scales in another that is not decayed."""
        return self.groups_by_decay(models, lr, lambda name: name != "bias")

    def merged(self, models: DiffusionModels) -> None:
        """Fold the gammas into weights and biases, in place; the U-Net has its original modules and keys again."""
        for path, layer in list(scaled_layers(models.unet)):
            models.unet.set_submodule(path, layer.folded())


def scaled_layers(module: nn.Module) -> Iterator[tuple[str, ScaledLinear]]:
    """All scaled layers inside a module, with their paths."""
    for path, layer in module.named_modules():
        if isinstance(layer, ScaledLinear):
            yield path, layer
