"""What LoRA and its relatives share: target layers, the low-rank layer, folding it into the weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy
from trainables.strategies.naming import expect, unknown_name

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
FEED_FORWARD = (".ff.net.0.proj", ".ff.net.2")
TARGETS: dict[str, Callable[[str], bool]] = {
    "attention": lambda path: path.endswith(ATTENTION),
    "attention+ff": lambda path: path.endswith(ATTENTION + FEED_FORWARD),
    "all_linear": lambda path: True,
}


class LowRankLinear(nn.Module):
    """A frozen linear layer plus a trained update of low rank: y = W0 x + b + (alpha / rank) B A x.

    The update starts at zero: A is Kaiming uniform, B zero.

    Args:
        base: The layer that is adapted; its weight and bias stay as they are.
        rank: Rows of A, columns of B.
        alpha: The update is scaled by alpha / rank.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.rank = rank
        self.alpha = alpha
        self.scale = alpha / rank
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device, dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output, in the base layer's dtype."""
        adapted: Tensor = self.base(x) + self.update(x)
        return adapted

    def update(self, x: Tensor) -> Tensor:
        """The trained part, (alpha / rank) B A x; the factors are cast to x, so half-precision bases work too."""
        reduced = functional.linear(x, self.lora_A.to(x.dtype)) * self.scale
        return functional.linear(reduced, self.lora_B.to(reduced.dtype))

    def weight(self) -> Tensor:
        """The adapted weight, [out, in] in the factors' precision."""
        return self.base.weight.to(self.lora_A.dtype) + self.scale * (self.lora_B @ self.lora_A)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain linear layer that computes the same; the base's own weight tensor is not written to."""
        self.base.weight = nn.Parameter(self.weight().to(self.base.weight.dtype), requires_grad=False)
        return self.base


@dataclass(frozen=True, kw_only=True)
class LowRankStrategy(Strategy):
    """Wraps the U-Net's targeted linear layers; everything else stays frozen."""

    layer: ClassVar[type[LowRankLinear]] = LowRankLinear

    rank: int = 8
    alpha: float = 16.0
    targets: str = "attention"

    def __post_init__(self) -> None:
        is_count = isinstance(self.rank, int) and not isinstance(self.rank, bool) and self.rank >= 1
        expect(is_count, "`rank` must be a whole number, at least 1", repr(self.rank), "Try 8.")
        is_scale = isinstance(self.alpha, int | float) and math.isfinite(self.alpha) and self.alpha > 0
        expect(is_scale, "`alpha` must be a positive number", repr(self.alpha), "Twice the rank is usual.")
        if self.targets not in TARGETS:
            raise unknown_name("targets", self.targets, TARGETS)

    def inject(self, models: DiffusionModels) -> None:
        """Wrap the targeted layers.

        Raises:
            ValueError: the models are adapted already, or no layer matches the targets.
        """
        expect(
            not any(True for _ in low_rank_layers(models.unet)),
            "`models` must be a base without low-rank layers",
            "one that is adapted already",
            "Attach to `models.fresh()` of the base.",
        )
        found = list(self.target_layers(models.unet))
        expect(
            bool(found),
            f"`targets` {self.targets!r} must match at least one linear layer of the U-Net",
            f"none in {models.base.name!r}",
            f"Choose one of {', '.join(TARGETS)} that this base has.",
        )
        for path, linear in found:
            models.unet.set_submodule(path, self.layer(linear, self.rank, self.alpha))

    def target_layers(self, unet: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
        """The linear layers that `targets` names, with their paths."""
        matches = TARGETS[self.targets]
        for path, module in unet.named_modules():
            if isinstance(module, nn.Linear) and matches(f".{path}"):
                yield path, module

    def merged(self, models: DiffusionModels) -> None:
        """Fold the update into the weights, in place; the U-Net has its original modules and keys again."""
        for path, layer in list(low_rank_layers(models.unet)):
            models.unet.set_submodule(path, layer.folded())


def low_rank_layers(module: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """All low-rank layers inside a module, with their paths."""
    for path, layer in module.named_modules():
        if isinstance(layer, LowRankLinear):
            yield path, layer


def peft_tensors(layer: LowRankLinear) -> dict[str, Tensor]:
    """A low-rank layer's tensors under the names that PEFT and diffusers give them."""
    named: dict[str, Any] = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
    magnitude = getattr(layer, "lora_magnitude_vector", None)
    if magnitude is not None:
        named["lora_magnitude_vector"] = magnitude
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
