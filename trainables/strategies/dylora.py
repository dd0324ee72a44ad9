"""DyLoRA: one training whose low-rank updates may be cut to any smaller rank afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Change, TrainingStep
from trainables.strategies.cuttable import CuttableStrategy
from trainables.strategies.low_rank import LowRankLayer, Weighted


class DyLoRALayer(LowRankLayer):
    """A low-rank layer of which a step trains the first b rows of A and columns of B only: y = W0 x + b + s B_b A_b x.

    Outside of steps all of its rank acts.

    Attributes:
        active: b within a training step, else the whole rank.

    Source: Valipour et al. 2022, "DyLoRA: Parameter-Efficient Tuning of Pretrained Models using Dynamic Search-Free
    Low Rank Adaptation", section 4.
    """

    def __init__(self, base: Weighted, rank: int, scale: float) -> None:
        super().__init__(base, rank, scale)
        self.active = rank
        self._is_frozen = False
        self._before: tuple[Tensor, Tensor] | None = None

    def begin(self, rank: int, scale: float, *, is_frozen: bool) -> None:
        """Let the first `rank` rows act, at this scale; `is_frozen`: only the last of them takes a gradient.

        Args:
            rank: how many rows act.
            scale: what their update is multiplied by.
            is_frozen: whether only the last of them takes a gradient.
        """
        self.active, self.scale, self._is_frozen = rank, scale, is_frozen
        self._before = (self.lora_A.detach().clone(), self.lora_B.detach().clone())

    @torch.no_grad()
    def end(self, scale: float) -> None:
        """Let all rows act again, and take back what moved of those that the step did not train."""
        if self._before is None:
            return
        a, b = self._before
        a[self._trained] = self.lora_A[self._trained]
        b[:, self._trained] = self.lora_B[:, self._trained]
        self.lora_A.copy_(a)
        self.lora_B.copy_(b)
        self.active, self.scale, self._is_frozen, self._before = self.rank, scale, False, None

    @property
    def _trained(self) -> slice:
        """The rows that the step trains."""
        return slice(self.active - 1 if self._is_frozen else 0, self.active)

    def factors(self) -> tuple[Tensor, Tensor]:
        """The rows of A and columns of B that act."""
        a, b = self.lora_A[: self.active], self.lora_B[:, : self.active]
        if not self._is_frozen:
            return a, b
        return torch.cat([a[:-1].detach(), a[-1:]]), torch.cat([b[:, :-1].detach(), b[:, -1:]], dim=1)


@dataclass(frozen=True, kw_only=True)
class DyLoRA(CuttableStrategy):
    """Low-rank updates of the targeted layers that can be cut to smaller ranks after training.

    Each step draws one b from 1 to `rank` for all layers and trains the first b rows of A and columns of B, scaled by
    alpha / b. Rows that a step does not train keep their values to the bit: neither weight decay nor what is left of
    an earlier momentum moves them, though their moments fade as they do at a gradient of zero.

    Attributes:
        rank: largest rank, at least 1.
        alpha: the update is scaled by alpha / rank, cut to b by alpha / b.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.
        frozen: a step trains row and column b only, those before it act but stay as they are.
        evaluated_ranks: ranks of which those below `rank` are cut out, scored and exported after training. None: the powers
            of two, of which a sweep scores the smallest, and each other one that may add something to what the training gives.

    Source: Valipour et al. 2022, "DyLoRA", algorithm 1.
    """

    name = "dylora"
    layer: ClassVar[type[LowRankLayer]] = DyLoRALayer

    frozen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(isinstance(self.frozen, bool), "`frozen` must be true or false", repr(self.frozen), "Try false.")

    def dynamic_layers(self, models: DiffusionModels) -> list[DyLoRALayer]:
        """This strategy's layers."""
        return [layer for layer in self.layers(models).values() if isinstance(layer, DyLoRALayer)]

    def num_kept(self, models: DiffusionModels) -> int:
        """The factors as they were before the step."""
        return sum(layer.lora_A.numel() + layer.lora_B.numel() for layer in self.dynamic_layers(models))

    def on_step_start(self, models: DiffusionModels, step: TrainingStep) -> None:
        """Draw the step's rank, the same in every layer and every worker."""
        drawn = drawn_rank(step, self.rank)
        for layer in self.dynamic_layers(models):
            layer.begin(drawn, self.alpha / drawn, is_frozen=self.frozen)

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """Let the whole rank act again; no layer changes its shape."""
        for layer in self.dynamic_layers(models):
            layer.end(self.scale)
        return None


def drawn_rank(step: TrainingStep, rank: int) -> int:
    """A rank from 1 to `rank`, each as likely, by the training's seed and the step's number alone."""
    return int(np.random.default_rng((step.seed, step.number)).integers(1, rank, endpoint=True))
