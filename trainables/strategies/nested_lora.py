"""Nested LoRA: one training of every rank, each on its part of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Change, TrainingStep
from trainables.strategies.cuttable import CuttableStrategy
from trainables.strategies.low_rank import LowRankLayer, Weighted
from trainables.strategies.low_rank_linear import low_rank_linear


class NestedLayer(LowRankLayer):
    """A low-rank layer of which, in training, the first r rows of A and columns of B act on an image that has rank r.

    Outside of steps all of its rank acts.

    Attributes:
        acting: float32[n, rank], 1 for the rows that act on each of the n images of a batch; None: all act on all.
    """

    def __init__(self, base: Weighted, rank: int, scale: float) -> None:
        super().__init__(base, rank, scale)
        self.acting: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output of n images, [n, ...]."""
        if self.acting is not None and isinstance(self.base, nn.Linear):
            return low_rank_linear(x, self.base, *self.factors(), scale=self.scale, acting=self.acting)
        return super().forward(x)

    def reduced(self, x: Tensor, a: Tensor) -> Tensor:
        """s A x without the rows that do not act on an image."""
        reduced = super().reduced(x, a)
        return reduced if self.acting is None else reduced * self.acting.to(reduced.dtype)[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class NestedLoRA(CuttableStrategy):
    """Low-rank updates of the targeted layers, of which every rank is trained, in one pass.

    The images of a training are dealt out to the ranks in turn. Where the batch size is a multiple of their number, a
    batch's gradient is that of the mean of the ranks' losses; over steps it is on average. All ranks have the same
    scale, alpha / `rank`: the smaller adapter is then a part of the larger one's product, and what is best at one
    rank does not keep another from its best (by Eckart and Young, the first r singular directions of a matrix are the
    best of rank r for every r). With alpha over its own rank, as DyLoRA has it, a rank that halves what it takes over
    from the one before cannot be best beside it.

    Args:
        rank: Largest rank, at least 1.
        alpha: The update is scaled by alpha / `rank`, also where it is cut.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.
        evaluated_ranks: Ranks of which those below `rank` are trained beside it, and cut out, scored and exported after
            training. None: the powers of two are trained, of which a sweep scores the smallest, and each other one that may
            add something to what the training gives. Without any it is LoRA.

    Source: Modoranu et al. 2026, "MatryoshkaLoRA" (nested ranks without drawing them); ours gives each image one rank, where
    that has each image pass a sum of all ranks, which is no rank's own output.
    """

    name = "nested_lora"
    layer: ClassVar[type[LowRankLayer]] = NestedLayer

    def nested_layers(self, models: DiffusionModels) -> list[NestedLayer]:
        """This strategy's layers."""
        return [layer for layer in self.layers(models).values() if isinstance(layer, NestedLayer)]

    def on_batch(self, models: DiffusionModels, numbers: NDArray[np.int64]) -> None:
        """Deal the ranks out to the images."""
        ranks = dealt_ranks((*self.smaller_ranks(), self.rank), numbers)
        layers = self.nested_layers(models)
        rows = torch.arange(self.rank, device=layers[0].lora_A.device)
        acting = (rows < torch.from_numpy(ranks).to(rows.device)[:, None]).float()
        for layer in layers:
            layer.acting = acting if self.smaller_ranks() else None

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """Let the whole rank act again; no layer changes its shape."""
        for layer in self.nested_layers(models):
            layer.acting = None
        return None

    def cut_to(self, rank: int) -> Self:
        """The first rows and columns, at the scale of the whole."""
        return replace(self, rank=rank, alpha=self.alpha * rank / self.rank, evaluated_ranks=())


def dealt_ranks(ranks: Sequence[int], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each image of a training, by its number in the order in which they are trained: all in turn.

    Args:
        ranks: those that are trained, k of them.
        numbers: of the images, int64[n].

    Returns:
        int64[n]; of any k images in a row, each rank has one.
    """
    return np.asarray(ranks, dtype=np.int64)[numbers % len(ranks)]
