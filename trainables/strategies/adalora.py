"""AdaLoRA: a budget of ranks that moves to the layers where it matters while training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Change, TrainingStep
from trainables.strategies.low_rank import LowRankLayer, LowRankStrategy, Weighted, is_finite
from trainables.strategies.low_rank_linear import full_precision

INITIAL_STD = 0.02
NUM_ALLOCATIONS = 100
PARTS = ("lora_A", "lora_B", "lora_E")


class AdaLoRALayer(LowRankLayer):
    """A layer whose update is a sum of triplets: y = W0 x + b + s P diag(E) Q x, with P = B and Q = A.

    P and Q start normal, E at zero, so that the update starts at zero. Within a training step every triplet acts, so
    that a dropped one may come back; outside of steps only those that are kept do.

    Attributes:
        lora_A: float32[rank, in], rows are right singular vectors where the penalty has its way.
        lora_B: float32[out, rank], columns are left singular vectors.
        lora_E: float32[rank, 1], singular values.
        kept: numbers of the triplets that the budget pays for; None where it pays for all.
        is_stepping: within a training step.
        importance: what training has found of each entry; None before and after the budget moves.

    Source: Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", equation 3.
    """

    def __init__(self, base: Weighted, rank: int, scale: float) -> None:
        super().__init__(base, rank, scale)
        self.lora_E = nn.Parameter(torch.zeros_like(self.lora_A[:, :1]))
        nn.init.normal_(self.lora_A, std=INITIAL_STD)
        nn.init.normal_(self.lora_B, std=INITIAL_STD)
        self.kept: list[int] | None = None
        self._dropped: Tensor | None = None
        self.is_stepping = False
        self.importance: Importance | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The adapted layer's output, in autocast's dtype where that is on, else in x's."""
        if isinstance(self.base, nn.Conv2d) and not len(self.factors()[0]):  # no convolution has zero channels
            plain: Tensor = self.base(x)
            return plain
        return super().forward(x)

    def factors(self) -> tuple[Tensor, Tensor]:
        """diag(E) Q and P of the triplets that act."""
        right = self.lora_E * self.lora_A
        if (
            self.is_stepping or self.kept is None
        ):  # in this order, as a compiled graph is made anew for what it has read
            return right, self.lora_B
        return right[self.kept], self.lora_B[:, self.kept]

    def kept_tensors(self) -> dict[str, Tensor]:
        """The parameters' entries of the kept triplets."""
        tensors = {name: getattr(self, name).detach() for name in PARTS}
        if self.kept is None:
            return tensors
        return {
            name: tensor[:, self.kept] if name == "lora_B" else tensor[self.kept] for name, tensor in tensors.items()
        }

    def keep(self, triplets: list[int]) -> None:
        """Drop all other triplets."""
        self.mark(triplets)
        self.silence()

    def mark(self, triplets: list[int]) -> None:
        """Note which triplets the budget pays for; the others may have values, until they are silenced."""
        self.kept = triplets
        self._dropped = torch.ones_like(self.lora_E, dtype=torch.bool)
        self._dropped[triplets] = False

    @torch.no_grad()
    def silence(self) -> None:
        """Set E of the dropped triplets to zero."""
        if self._dropped is not None:
            self.lora_E.masked_fill_(self._dropped, 0.0)

    def cut_to(self, rank: int) -> None:
        """Leave room for `rank` triplets only, with the values of the first."""
        self.lora_A = nn.Parameter(self.lora_A.detach()[:rank].clone())
        self.lora_E = nn.Parameter(self.lora_E.detach()[:rank].clone())
        self.lora_B = nn.Parameter(self.lora_B.detach()[:, :rank].clone())

    def distances_from_orthogonality(self) -> list[Tensor]:
        """||P^T P - I|| and ||Q Q^T - I||, Frobenius norms."""
        p, q = self.lora_B, self.lora_A
        identity = torch.eye(self.rank, device=q.device, dtype=q.dtype)
        return [torch.linalg.norm(gram - identity) for gram in (p.T @ p, q @ q.T)]


class Importance:
    """How much the loss depends on each entry of a layer's factors, smoothed over steps, and how much that varies.

    Source: Zhang et al. 2023, equations 8 to 11.
    """

    def __init__(self, layer: AdaLoRALayer) -> None:
        self.smoothed = {name: torch.zeros_like(getattr(layer, name)) for name in PARTS}
        self.deviation = {name: torch.zeros_like(getattr(layer, name)) for name in PARTS}

    @torch.no_grad()
    def update(self, layer: AdaLoRALayer, beta1: float, beta2: float) -> None:
        """Take up a step's |parameter x gradient|.

        Args:
            layer: with the gradients of the step.
            beta1: share of the smoothed importance that is kept.
            beta2: share of its smoothed deviation that is kept.
        """
        for name in PARTS:
            parameter, smoothed = getattr(layer, name), self.smoothed[name]
            if parameter.grad is None:
                continue
            sensitivity = (parameter * parameter.grad).abs()
            smoothed.lerp_(sensitivity, 1 - beta1)
            self.deviation[name].lerp_((sensitivity - smoothed).abs(), 1 - beta2)

    def tensors(self) -> dict[str, Tensor]:
        """Both by name, such as `smoothed.lora_A`."""
        kinds = {"smoothed": self.smoothed, "deviation": self.deviation}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    def scores(self) -> Tensor:
        """Each triplet's score, [rank], higher is more important: that of its singular value plus its vectors' means."""
        entries = {name: self.smoothed[name] * self.deviation[name] for name in PARTS}
        return entries["lora_E"].flatten() + entries["lora_A"].mean(1) + entries["lora_B"].mean(0)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many triplets all layers together keep after each step, counted from 1.

    Attributes:
        initial: triplets that are kept until step `start`.
        final: triplets that are kept from step `end` on; in between their number falls as a cubic.
        start: last step at which all triplets are kept.
        end: first step at which only `final` are.
        every: steps from one allocation to the next.

    Source: Zhang et al. 2023, equation 12.
    """

    initial: int
    final: int
    start: int
    end: int
    every: int

    def at(self, step: int) -> int:
        """The budget after a step."""
        if step <= self.start:
            return self.initial
        if step >= self.end:
            return self.final
        left = 1 - (step - self.start) / (self.end - self.start)
        return int((self.initial - self.final) * left**3 + self.final)

    def is_allocated(self, step: int) -> bool:
        """Whether the triplets to keep are chosen anew after a step."""
        return step == self.end or (self.start < step < self.end and step % self.every == 0)


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(LowRankStrategy):
    """Low-rank updates of the targeted layers whose ranks go to where they matter most.

    Every layer starts at `initial_ratio` times `rank`; by the time that `final_share` of the steps are left, the least important
    triplets of all layers together have been dropped, until `rank` of them remain in the mean over layers.

    Attributes:
        rank: mean rank of a layer at the end, at least 1.
        initial_ratio: rank of every layer at the start over `rank`, above 1; rounded up. The paper has 1.5.
        alpha: the update is scaled by alpha / initial rank, whatever ranks become.
        targets: `attention`, `attention+ff`, `all_linear` or `linear+conv`.
        components: `unet`, `text_encoder` or `unet+text_encoder`.
        beta1: of the moving average of importance.
        beta2: of the moving average of its deviation.
        orthogonality_weight: of the mean of ||P^T P - I|| and ||Q Q^T - I|| over layers, which is added to the loss.
        initial_share: share of the steps with all triplets, before the budget falls.
        final_share: share of the steps with the final triplets, after it fell.

    Source: Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning"; shares about
    those of its table 8.
    """

    name = "adalora"
    layer: ClassVar[type[LowRankLayer]] = AdaLoRALayer

    initial_ratio: float = 1.5
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality_weight: float = 0.5
    initial_share: float = 0.1
    final_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        is_above = _number(self.initial_ratio, "initial_ratio") > 1
        expect(is_above, "`initial_ratio` must be above 1", repr(self.initial_ratio), "Try 1.5.")
        for name, remedy in {"beta1": "Try 0.85.", "beta2": "Try 0.85."}.items():
            value = getattr(self, name)
            expect(0 < _number(value, name) < 1, f"`{name}` must be between 0 and 1", repr(value), remedy)
        weight = _number(self.orthogonality_weight, "orthogonality_weight")
        expect(weight >= 0, "`orthogonality_weight` must be at least 0", repr(weight), "Try 0.5.")
        self._expect_shares()

    def _expect_shares(self) -> None:
        shares = [_number(getattr(self, name), name) for name in ("initial_share", "final_share")]
        rule = "`initial_share` and `final_share` must be at least 0, and together below 1"
        expect(min(shares) >= 0 and sum(shares) < 1, rule, f"{shares[0]} and {shares[1]}", "Try 0.1 and 0.5.")

    @property
    def size_after_training(self) -> str:
        """Triplets are dropped."""
        return "at most"

    @property
    def counts_on_steps(self) -> bool:
        """Its budget of ranks falls by steps."""
        return True

    @property
    def initial_rank(self) -> int:
        """The rank that layers are made with."""
        return math.ceil(self.initial_ratio * self.rank)

    def adaptive_layers(self, models: DiffusionModels) -> dict[str, AdaLoRALayer]:
        """This strategy's layers by path."""
        return {path: layer for path, layer in self.layers(models).items() if isinstance(layer, AdaLoRALayer)}

    def num_kept(self, models: DiffusionModels) -> int:
        """Each entry's smoothed importance and its deviation."""
        layers = self.adaptive_layers(models).values()
        return 2 * sum(layer.get_parameter(name).numel() for layer in layers for name in PARTS)

    def budget(self, num_layers: int, num_steps: int) -> Budget:
        """The budget's course over a training, however short it is."""
        start, end = int(self.initial_share * num_steps), num_steps - int(self.final_share * num_steps)
        return Budget(
            initial=self.initial_rank * num_layers,
            final=self.rank * num_layers,
            start=start,
            end=end,
            every=max(1, round((end - start) / NUM_ALLOCATIONS)),
        )

    def on_step_start(self, models: DiffusionModels, step: TrainingStep) -> None:
        """Let every triplet act."""
        for layer in self.adaptive_layers(models).values():
            layer.is_stepping = True

    def penalty(self, models: DiffusionModels) -> Tensor | None:
        """The weighted mean distance of P and Q from orthogonal matrices, in full precision whatever the trial's."""
        layers = list(self.adaptive_layers(models).values())
        if not self.orthogonality_weight:
            return None
        with full_precision(layers[0].lora_A.device.type):
            distances = [distance for layer in layers for distance in layer.distances_from_orthogonality()]
            return self.orthogonality_weight * torch.stack(distances).mean()

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """Take up what the gradients say of importance, and spend the budget anew where that is due."""
        layers = self.adaptive_layers(models)
        budget, done = self.budget(len(layers), step.num_steps), step.number + 1
        for layer in layers.values():
            layer.is_stepping = False
        # The last choice goes by what was known before its step, unless nothing was.
        if done < budget.end or (done == budget.end and not any(layer.importance for layer in layers.values())):
            self.learn_importance(layers.values())
        if budget.is_allocated(done):
            allocate(layers.values(), budget.at(done))
        elif done > budget.end:
            for layer in layers.values():
                layer.silence()
        if done == budget.end:
            for layer in layers.values():
                layer.importance = None
        return Change(ranks=self.ranks(models)) if budget.is_allocated(done) else None

    def learn_importance(self, layers: Collection[AdaLoRALayer]) -> None:
        """Update every layer's importance, except by the overflowing gradients of an fp16 step that is not taken."""
        if not _finite_gradients(layers):
            return
        for layer in layers:
            layer.importance = layer.importance or Importance(layer)
            layer.importance.update(layer, self.beta1, self.beta2)

    def training_state(self, models: DiffusionModels) -> dict[str, Tensor]:
        """Which triplets are kept, and what is known of their importance."""
        state: dict[str, Tensor] = {}
        for path, layer in self.adaptive_layers(models).items():
            if layer.kept is not None:
                state[f"{path}.kept"] = torch.tensor(layer.kept, dtype=torch.int64)
            if layer.importance is not None:
                state |= {f"{path}.{name}": tensor for name, tensor in layer.importance.tensors().items()}
        return state

    def resume(self, models: DiffusionModels, state: Mapping[str, Tensor]) -> None:
        """Take up both."""
        for path, layer in self.adaptive_layers(models).items():
            if f"{path}.kept" in state:
                layer.mark(state[f"{path}.kept"].tolist())
            if f"{path}.smoothed.lora_A" in state:
                layer.importance = Importance(layer)
                for name, tensor in layer.importance.tensors().items():
                    tensor.copy_(state[f"{path}.{name}"])

    def tensors(self, models: DiffusionModels) -> dict[str, Tensor]:
        """The kept triplets."""
        return {
            f"{path}.{name}": tensor
            for path, layer in self.adaptive_layers(models).items()
            for name, tensor in layer.kept_tensors().items()
        }

    def fit_to(self, models: DiffusionModels, tensors: Mapping[str, Tensor]) -> None:
        """Give every layer as many triplets as the adapter has for it."""
        for path, layer in self.adaptive_layers(models).items():
            factor = tensors.get(f"{path}.lora_A")
            if factor is not None and factor.dim() == 2 and len(factor) < layer.rank:
                layer.cut_to(len(factor))


def allocate(layers: Collection[AdaLoRALayer], budget: int) -> None:
    """Keep the `budget` most important triplets of all layers together; of equal ones the first."""
    scores = [layer.importance.scores() if layer.importance else torch.zeros(layer.rank) for layer in layers]
    order = torch.cat([score.cpu() for score in scores]).argsort(descending=True, stable=True)
    is_kept = torch.zeros(len(order), dtype=torch.bool)
    is_kept[order[:budget]] = True
    for layer, mask in zip(layers, torch.split(is_kept, [layer.rank for layer in layers]), strict=True):
        layer.keep(mask.nonzero().flatten().tolist())


def _finite_gradients(layers: Collection[AdaLoRALayer]) -> bool:
    gradients = [getattr(layer, name).grad for layer in layers for name in PARTS]
    sums = [gradient.sum() for gradient in gradients if gradient is not None]
    return not sums or bool(torch.stack(sums).isfinite().all())


def _number(value: object, name: str) -> float:
    if not is_finite(value):
        raise ValueError(f"`{name}` must be a number, but got {value!r}. Leave it out for the default.")
    return float(value)
