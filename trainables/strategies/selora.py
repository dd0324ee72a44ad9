"""SeLoRA: low-rank updates that start at rank 1 and gain ranks, layer by layer, where a test says that it pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Change, Growth, TrainingStep
from trainables.strategies.low_rank import LowRankLayer, TargetedStrategy, expect_positive, expect_rank


@dataclass(frozen=True)
class Candidate:
    """One more rank that a layer tries for a step; neither the optimiser nor a distributed wrapper knows of it.

    Attributes:
        row: float32[1, in], of A; Kaiming uniform. Its gradient is zero, as the column is.
        column: float32[out, 1], of B; zero, with a gradient.
    """

    row: Tensor
    column: Tensor

    @property
    def gradient(self) -> Tensor:
        """The loss's by the column, float32[out, 1]; zero where the layer took no part."""
        return torch.zeros_like(self.column) if self.column.grad is None else self.column.grad


class SelfExpandingLayer(LowRankLayer):
    """A low-rank layer that can try another rank without changing its output, and keep it.

    Source: Mao et al. 2024, "SeLoRA", equation 2.
    """

    candidate: Candidate | None = None

    def propose(self, generator: torch.Generator) -> None:
        """Put one more row and a column of zeros beside A and B, until it is kept or dropped."""
        row = torch.empty(1, self.lora_A.shape[1])
        nn.init.kaiming_uniform_(row, a=math.sqrt(5), generator=generator)
        column = torch.zeros_like(self.lora_B[:, :1]).requires_grad_()
        self.candidate = Candidate(row.to(self.lora_A.device), column)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output; the candidate adds exactly zero to it, and takes a gradient."""
        adapted = super().forward(x)
        if self.candidate is None:
            return adapted
        return adapted + self.update(x, self.candidate.row, self.candidate.column)

    def information(self) -> Tensor:
        """Sum of the squared gradients of A and B, a float64 scalar.

        The gradients are of the batch's mean loss, not sample by sample as in the paper's equation 3.

        Source: Mao et al. 2024, "SeLoRA", equation 4.
        """
        gradients = [parameter.grad for parameter in (self.lora_A, self.lora_B) if parameter.grad is not None]
        return torch.stack([square_norm(gradient) for gradient in gradients or [torch.zeros_like(self.lora_A)]]).sum()

    def keep(self, candidate: Candidate) -> tuple[Growth, Growth]:
        """Make the candidate the last row of A and column of B."""
        a, b = self.lora_A, self.lora_B
        self.lora_A = nn.Parameter(torch.cat([a.detach(), candidate.row]))
        self.lora_B = nn.Parameter(torch.cat([b.detach(), candidate.column.detach()], dim=1))
        self.candidate = None
        return Growth(a, self.lora_A), Growth(b, self.lora_B)

    def resize(self, rank: int) -> None:
        """Take new factors of that rank, whose values are yet to be loaded."""
        self.lora_A = nn.Parameter(self.lora_A.new_zeros(rank, self.lora_A.shape[1]))
        self.lora_B = nn.Parameter(self.lora_B.new_zeros(len(self.lora_B), rank))


def square_norm(gradient: Tensor) -> Tensor:
    """Sum of squares in float64, where small gradients do not vanish and scaled ones do not overflow."""
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    return norm.square()


@dataclass(frozen=True, kw_only=True)
class SeLoRA(TargetedStrategy):
    """Low-rank updates of the targeted layers that start small; their ranks grow while they train.

    Every `interval` steps each layer tests one more rank on the batch and weights of that step, with a new row of A and
    a column of zeros in B, so that no output changes. The layer keeps that very row if the squared gradients of the
    expanded factors add up to at least `threshold` times those of the factors as they were. The optimiser goes on with
    what it knew of the old rows.

    Gradients are of the batch's mean loss, not sample by sample as in the paper's equation 3, so the ratio depends on
    the batch size: in larger batches the samples' noise cancels, in the old rows' gradients as in the new one's.

    The ratio does not know how large the gradients are. Where targets are exact, ranks grow to that of the true update and
    growth then ends by itself. Where they are noisy, as the noise that diffusion predicts is, a layer that has nothing to
    learn grows on: its few small rows hold no more of the noise's gradient than a new one does, about 1 + 1/rank. A
    higher threshold, a longer interval or `max_rank` bounds that.

    Attributes:
        initial_rank: rank that every layer starts at.
        alpha: the update is scaled by alpha / initial_rank, whatever the rank grows to.
        interval: optimiser steps between tests; the first is after so many.
        threshold: ratio that a test must reach, at least 1; at 1 every layer with a gradient grows at every test.
        max_rank: rank at which a layer stops growing; None: no limit.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.

    Source: Mao et al. 2024, "SeLoRA: Self-Expanding Low-Rank Adaptation of Latent Diffusion Model for Medical Image
    Synthesis", equations 2 to 5 and algorithm 1; threshold, interval and alpha as in the code published with it.
    """

    name = "selora"
    layer: ClassVar[type[LowRankLayer]] = SelfExpandingLayer

    initial_rank: int = 1
    alpha: float = 8.0
    interval: int = 40
    threshold: float = 1.3
    max_rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_rank(self.initial_rank, "initial_rank")
        is_count = isinstance(self.interval, int) and not isinstance(self.interval, bool) and self.interval >= 1
        expect(is_count, "`interval` must be a whole number, at least 1", repr(self.interval), "Try 40.")
        expect_positive(self.threshold, "threshold", "Try 1.3.")
        expect(self.threshold >= 1, "`threshold` must be at least 1", repr(self.threshold), "Try 1.3.")
        if self.max_rank is not None:
            expect_rank(self.max_rank, "max_rank")
            rule = f"`max_rank` must be at least `initial_rank`, {self.initial_rank}"
            expect(self.max_rank >= self.initial_rank, rule, repr(self.max_rank), "Raise it, or leave it out.")

    @property
    def size_after_training(self) -> str:
        """Ranks grow."""
        return "at least"

    def on_step_start(self, models: DiffusionModels, step: TrainingStep) -> None:
        """Let every layer that may grow try another rank, if a test is due; at the last step there is no use in it."""
        if step.number == 0 or step.number % self.interval or step.number == step.num_steps - 1:
            return
        for place, layer in enumerate(self.expanding(models).values()):
            if self.max_rank is None or layer.rank < self.max_rank:
                layer.propose(candidate_generator(step, place))

    def on_gradients(self, models: DiffusionModels, mean: Callable[[Tensor], Tensor]) -> None:
        """Drop the candidates that do not reach the threshold, and those whose gradients overflowed."""
        tested = tested_layers(self.expanding(models).values())
        if not tested:
            return
        gradients = [candidate.gradient.flatten() for _, candidate in tested]
        averaged = torch.split(mean(torch.cat(gradients)), [len(gradient) for gradient in gradients])
        current = torch.stack([layer.information() for layer, _ in tested])
        expanded = current + torch.stack([square_norm(gradient) for gradient in averaged])
        # A layer without any gradient has told nothing, and does not grow.
        passed = expanded.isfinite() & (expanded > 0) & (expanded >= self.threshold * current)
        for (layer, _), has_passed in zip(tested, passed.tolist(), strict=True):
            if not has_passed:
                layer.candidate = None

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """Keep the candidates that are left."""
        tested = tested_layers(self.expanding(models).values())
        grown = tuple(growth for layer, candidate in tested for growth in layer.keep(candidate))
        return Change(ranks=self.ranks(models), grown=grown) if grown else None

    def fit_to(self, models: DiffusionModels, tensors: Mapping[str, Tensor]) -> None:
        """Give each layer the rank that it has in the adapter."""
        for path, layer in self.expanding(models).items():
            factor = tensors.get(f"{path}.lora_A")
            if factor is not None and factor.dim() == 2:  # what does not fit otherwise is refused when it is loaded
                layer.resize(len(factor))

    def expanding(self, models: DiffusionModels) -> dict[str, SelfExpandingLayer]:
        """The layers by path, as what they are."""
        layers = self.layers(models)
        return {path: layer for path, layer in layers.items() if isinstance(layer, SelfExpandingLayer)}


def tested_layers(layers: Iterable[SelfExpandingLayer]) -> list[tuple[SelfExpandingLayer, Candidate]]:
    """The layers that try another rank, with it."""
    return [(layer, layer.candidate) for layer in layers if layer.candidate is not None]


def candidate_generator(step: TrainingStep, place: int) -> torch.Generator:
    """Random numbers of one layer's test, the same in every worker."""
    state = np.random.SeedSequence((step.seed, step.number, place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
