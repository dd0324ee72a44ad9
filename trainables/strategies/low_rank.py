"""What LoRA and its relatives share: target layers, the low-rank layer, folding it into the weight."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect, expect_known
from trainables.strategies.base import Sizes, Strategy
from trainables.strategies.low_rank_linear import low_rank_linear

Weighted = nn.Linear | nn.Conv2d
ATTENTION = (
    *(".to_q", ".to_k", ".to_v", ".to_out.0"),
    *(".q_proj", ".k_proj", ".v_proj", ".out_proj"),
    *(".self.query", ".self.key", ".self.value", ".attention.output.dense"),
)
FEED_FORWARD = (".ff.net.0.proj", ".ff.net.2", ".fc1", ".fc2", ".intermediate.dense", ".output.dense")
"""As diffusers names them in the U-Net, and transformers in CLIP's and BERT's text encoders."""
TARGETS: dict[str, Callable[[str, Weighted], bool]] = {
    "attention": lambda path, layer: isinstance(layer, nn.Linear) and path.endswith(ATTENTION),
    "attention+ff": lambda path, layer: isinstance(layer, nn.Linear) and path.endswith(ATTENTION + FEED_FORWARD),
    "all_linear": lambda path, layer: isinstance(layer, nn.Linear),
    "linear+conv": lambda path, layer: True,
}
COMPONENTS = {
    "unet": ("unet",),
    "text_encoder": ("text_encoder",),
    "unet+text_encoder": ("unet", "text_encoder"),
}


class LowRankLayer(nn.Module):
    """A frozen linear or convolution layer plus a trained update of low rank: y = W0 x + b + s B A x.

    The update starts at zero: A is Kaiming uniform, B zero. Of a convolution, A is the kernel of a convolution of the
    same size, stride and padding to `rank` channels, flattened, and B mixes these.

    Args:
        base: the layer that is adapted; its weight and bias stay as they are.
        rank: rows of A, columns of B.
        scale: s, alpha / rank in LoRA.

    Attributes:
        lora_A: float32[rank, in], in counting a convolution's kernel positions.
        lora_B: float32[out, rank].

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    def __init__(self, base: Weighted, rank: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        weight = base.weight
        self.lora_A = nn.Parameter(torch.empty(rank, weight[0].numel(), device=weight.device, dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.zeros(len(weight), rank, device=weight.device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    @property
    def rank(self) -> int:
        """Rows of A."""
        return len(self.lora_A)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output, in autocast's dtype where that is on, else in x's."""
        a, b = self.factors()
        if isinstance(self.base, nn.Linear):
            return low_rank_linear(x, self.base, a, b, scale=self.scale)
        adapted: Tensor = self.base(x) + self.update(x, a, b)
        return adapted

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as they act: [rank, in] and [out, rank]."""
        return self.lora_A, self.lora_B

    def update(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """s B A x; the factors are cast to x, so half-precision bases work too.

        Args:
            x: the layer's input.
            a: [rank, in], or [rank, in * k * k] of a convolution.
            b: [out, rank].
        """
        reduced = self.reduced(x, a)
        if isinstance(self.base, nn.Conv2d):
            return functional.conv2d(reduced, b.to(reduced.dtype)[:, :, None, None])
        return functional.linear(reduced, b.to(reduced.dtype))

    def reduced(self, x: Tensor, a: Tensor) -> Tensor:
        """s A x: of a linear layer [..., rank], of a convolution [n, rank, height, width]."""
        if isinstance(self.base, nn.Conv2d):
            kernel = a.to(x.dtype).view(len(a), *self.base.weight.shape[1:])
            reduced: Tensor = self.base._conv_forward(x, kernel, None) * self.scale
            return reduced
        return functional.linear(x, a.to(x.dtype)) * self.scale

    def weight(self) -> Tensor:
        """The adapted weight, flattened to [out, in], in the factors' precision."""
        a, b = self.factors()
        return self.base.weight.flatten(1).to(a.dtype) + self.scale * (b @ a)

    @torch.no_grad()
    def folded(self) -> Weighted:
        """The plain layer that computes the same; the base's own weight tensor is not written to."""
        weight = self.weight().view_as(self.base.weight).to(self.base.weight.dtype)
        self.base.weight = nn.Parameter(weight, requires_grad=False)
        return self.base

    @torch.no_grad()
    def peft_tensors(self) -> dict[str, Tensor]:
        """The factors under the names and in the shapes that PEFT and diffusers give them."""
        a, b = self.factors()
        if isinstance(self.base, nn.Conv2d):
            a, b = a.view(len(a), *self.base.weight.shape[1:]), b[:, :, None, None]
        return {"lora_A.weight": a, "lora_B.weight": b}


def expect_rank(rank: object, name: str = "rank") -> None:
    """Refuse what is no rank.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    is_count = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    expect(is_count, f"`{name}` must be a whole number, at least 1", repr(rank), "Try 8.")


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that a float can be; unlike `math.isfinite`, of whole numbers of any size."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def expect_positive(value: object, name: str, remedy: str) -> None:
    """Refuse what is no positive number.

    Args:
        value: what was given.
        name: of the hyperparameter, for the message.
        remedy: what to do, in whole sentences.

    Raises:
        ValueError: it is not a number above 0, or not finite.
    """
    expect(is_finite(value) and value > 0, f"`{name}` must be a positive number", repr(value), remedy)


@dataclass(frozen=True, kw_only=True)
class TargetedStrategy(Strategy):
    """Wraps the targeted layers of U-Net, text encoder or both in low-rank layers; everything else stays frozen.

    Attributes:
        alpha: updates are multiplied by alpha / rank; twice the rank is usual, and 16 is that for rank 8.
        targets: which layers are wrapped: those of `attention`, as LoRA's paper does, `attention+ff`, `all_linear` or
            `linear+conv`.
        components: whose layers: `unet`, `text_encoder` or `unet+text_encoder`; of the U-Net alone, prompt states can
            be cached.
    """

    layer: ClassVar[type[LowRankLayer]] = LowRankLayer
    sized: ClassVar[Sizes] = {"targets": tuple(TARGETS), "components": ("unet+text_encoder",)}

    alpha: float = 16.0
    targets: str = "attention"
    components: str = "unet"

    def __post_init__(self) -> None:
        expect_positive(self.alpha, "alpha", "Twice the rank is usual.")
        expect_known("targets", self.targets, TARGETS)
        expect_known("components", self.components, COMPONENTS)

    @property
    def trains(self) -> tuple[str, ...]:
        """The components with targeted layers."""
        return COMPONENTS[self.components]

    @property
    @abstractmethod
    def initial_rank(self) -> int:
        """The rank that layers are made with."""

    @property
    def scale(self) -> float:
        """What an update is multiplied by."""
        return self.alpha / self.initial_rank

    def inject(self, models: DiffusionModels) -> None:
        """Wrap the targeted layers.

        Raises:
            ValueError: the models are adapted already, or no layer of a component matches the targets.
        """
        expect(
            not self.layers(models),
            "`models` must be a base without low-rank layers",
            "one that is adapted already",
            "Attach to `models.fresh()` of the base.",
        )
        for name in self.trains:
            component = models.component(name)
            layers = list(self.target_layers(component))
            expect(
                bool(layers),
                f"`targets` {self.targets!r} must match at least one layer of {name}",
                f"none in {models.base.name!r}",
                f"Choose one of {', '.join(TARGETS)} that this base has.",
            )
            for path, layer in layers:
                component.set_submodule(path, self.layer(layer, self.initial_rank, self.scale))

    def target_layers(self, component: nn.Module) -> Iterator[tuple[str, Weighted]]:
        """The layers that `targets` names, with their paths."""
        for path, module in component.named_modules():
            if isinstance(module, Weighted) and TARGETS[self.targets](f".{path}", module):
                yield path, module

    def layers(self, models: DiffusionModels) -> dict[str, LowRankLayer]:
        """The low-rank layers of the components that this strategy trains, by path, such as `unet.mid_block...to_q`."""
        return {
            f"{name}.{path}": layer for name in self.trains for path, layer in low_rank_layers(models.component(name))
        }

    def ranks(self, models: DiffusionModels) -> dict[str, int]:
        """The layers' ranks as they act."""
        return {path: len(layer.factors()[0]) for path, layer in self.layers(models).items()}

    def merged(self, models: DiffusionModels) -> None:
        """Fold the updates into the weights, in place; the components have their original modules and keys again."""
        for path, layer in self.layers(models).items():
            name, _, inner = path.partition(".")
            models.component(name).set_submodule(inner, layer.folded())


@dataclass(frozen=True, kw_only=True)
class LowRankStrategy(TargetedStrategy):
    """One rank, chosen beforehand, for all layers.

    Attributes:
        rank: the rank of every layer's update; 8 is what the source study trains with.
    """

    rank: int = 8

    def __post_init__(self) -> None:
        expect_rank(self.rank)
        super().__post_init__()

    @property
    def initial_rank(self) -> int:
        """The rank that layers are made with."""
        return self.rank


def low_rank_layers(module: nn.Module) -> Iterator[tuple[str, LowRankLayer]]:
    """All low-rank layers inside a module, with their paths."""
    for path, layer in module.named_modules():
        if isinstance(layer, LowRankLayer):
            yield path, layer
