"""DoRA: a low-rank update of each targeted weight's direction, and its magnitude trained apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.strategies.low_rank import LowRankLayer, LowRankStrategy, Weighted
from trainables.strategies.low_rank_linear import Rows, full_precision, low_rank_linear


class DoRALayer(LowRankLayer):
    """A layer with the weight m (W0 + s B A) / ||W0 + s B A||, norms by output channel, s = alpha / rank.

    The norm is a constant to the gradient, as in section 4.3 of the paper. It is had without forming W0 + s B A:
    ||.||^2 = diag(W0 W0^T) + 2 s diag(B A W0^T) + s^2 diag(B A A^T B^T), the first term once for all.

    Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equations 5 and 11.
    """

    base_square_norm: Tensor
    reads_base_in_full = True

    def __init__(self, base: Weighted, rank: int, scale: float) -> None:
        super().__init__(base, rank, scale)
        weight = base.weight.detach().flatten(1)
        square_norm = weight.to(torch.promote_types(weight.dtype, torch.float32)).square().sum(1)
        self.register_buffer("base_square_norm", square_norm, persistent=False)
        self.lora_magnitude_vector = nn.Parameter(square_norm.sqrt().float())

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output; the bias is not scaled."""
        a, b = self.factors()
        if isinstance(self.base, nn.Linear):
            rows = Rows(self.lora_magnitude_vector, self.direction_norm())
            return low_rank_linear(x, self.base, a, b, scale=self.scale, rows=rows)
        direction: Tensor = self.base._conv_forward(x, self.base.weight, None) + self.update(x, a, b)
        # As in `low_rank_linear`, the product is rounded, not the scale.
        adapted = (direction * self._by_channel(self.row_scale())).to(direction.dtype)
        return adapted if self.base.bias is None else adapted + self._by_channel(self.base.bias.to(adapted.dtype))

    def _by_channel(self, values: Tensor) -> Tensor:
        """One value an output channel, in the shape that multiplies the layer's output."""
        return values[:, None, None] if isinstance(self.base, nn.Conv2d) else values

    def row_scale(self) -> Tensor:
        """Magnitude over norm, float32[out]; exactly 1 before training."""
        return self.lora_magnitude_vector / self.direction_norm()

    @torch.no_grad()
    def direction_norm(self) -> Tensor:
        """||W0 + s B A|| by row, float32[out], in full precision whatever the trial's."""
        with full_precision(self.lora_A.device.type):
            a, b = self.lora_A, self.lora_B
            crossed = self.base.weight.flatten(1).to(a.dtype) @ a.T
            mixed = torch.addmm(crossed, b, a @ a.T, beta=2 * self.scale, alpha=self.scale**2)
            square = torch.linalg.vecdot(b, mixed).add_(self.base_square_norm)
            norm: Tensor = square.clamp_min_(torch.finfo(square.dtype).tiny).sqrt_()
            return norm

    def weight(self) -> Tensor:
        """The adapted weight, flattened to [out, in], in the factors' precision."""
        return self.row_scale()[:, None] * super().weight()

    def peft_tensors(self) -> dict[str, Tensor]:
        """The factors and the magnitude under the names and in the shapes that PEFT gives them."""
        magnitude = self._by_channel(self.lora_magnitude_vector.detach())
        shaped = magnitude[None] if isinstance(self.base, nn.Conv2d) else magnitude
        return {**super().peft_tensors(), "lora_magnitude_vector": shaped}


@dataclass(frozen=True, kw_only=True)
class DoRA(LowRankStrategy):
    """Low-rank updates of the targeted layers' direction, with trained magnitudes.

    Magnitudes are not decayed: they are the norms of the adapted weight's rows, which weight decay would pull to zero.

    Attributes:
        rank: rank of the update, at least 1.
        alpha: the update is scaled by alpha / rank.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.

    Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation".
    """

    name = "dora"
    layer: ClassVar[type[LowRankLayer]] = DoRALayer

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """The factors in one group, magnitudes in another that is not decayed."""
        return self.groups_by_decay(models, lr, lambda name: name == "lora_magnitude_vector")
