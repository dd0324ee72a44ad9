"""Several strategies at once, each on its own parts of the base: full U-Net and text encoder, LoRA and text encoder, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Change, Strategy, TrainingStep
from trainables.strategies.low_rank import expect_positive

LR_RATIO = "lr_ratio"
LR_RATIOS = {"text_encoder": 0.1, "vae": 0.1, "textual_inversion": 10.0}
"""A part's learning rate over the trial's, where none is given. Text encoder and autoencoder follow "Pixels under
Pressure", 1e-6 beside 1e-5; new tokens their own papers, about 1e-3 beside 1e-4 for low-rank adapters."""


@dataclass(frozen=True, kw_only=True)
class Composed(Strategy):
    """Strategies that train different parts of the base together, each at its own learning rate.

    Attributes:
        label: name in tables, `lora+text_encoder` or that of a listed combination, such as `all`.
        parts: the strategies; no two of them train the same component.
        lr_ratios: each part's learning rate over the trial's.

    Raises:
        ValueError: two parts train the same component, or a ratio is not positive.
    """

    label: str
    parts: tuple[Strategy, ...]
    lr_ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        expect(
            len(set(self.trains)) == len(self.trains),
            f"`{self.label}` must combine strategies that train different components",
            " and ".join(f"{part.name} on {'+'.join(part.trains)}" for part in self.parts),
            "Choose one strategy for each of U-Net, autoencoder and text encoder.",
        )
        for part, ratio in zip(self.parts, self.lr_ratios, strict=True):
            expect_positive(ratio, f"{part.name}.{LR_RATIO}", f"Try {LR_RATIOS.get(part.name, 1.0):g}.")

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    @property
    def trains(self) -> tuple[str, ...]:
        """What the parts train."""
        return tuple(component for part in self.parts for component in part.trains)

    @property
    def summary(self) -> str:
        """What the parts train, in words."""
        return " ".join(part.summary for part in self.parts)

    @property
    def size_after_training(self) -> str:
        """How the adapter's size changes: as that of the parts whose size does."""
        changing = {part.size_after_training for part in self.parts} - {"exact"}
        return " or ".join(sorted(changing)) or "exact"

    @property
    def reconstruction_weight(self) -> float:
        """The weight of the part that trains the autoencoder."""
        return max(part.reconstruction_weight for part in self.parts)

    @property
    def counts_on_steps(self) -> bool:
        """Whether a part does."""
        return any(part.counts_on_steps for part in self.parts)

    def hyperparameters(self) -> dict[str, Any]:
        """Each part's own and its learning rate's ratio, as in `lora.rank` and `text_encoder.lr_ratio`."""
        return {
            f"{part.name}.{key}": value
            for part, ratio in zip(self.parts, self.lr_ratios, strict=True)
            for key, value in {**part.hyperparameters(), LR_RATIO: ratio}.items()
        }

    @property
    def identified_elsewhere(self) -> frozenset[str]:
        """The parts' own."""
        return frozenset(f"{part.name}.{key}" for part in self.parts for key in part.identified_elsewhere)

    def num_kept(self, models: DiffusionModels) -> int:
        """All parts' together."""
        return sum(part.num_kept(models) for part in self.parts)

    def for_conditions(self, conditions: Sequence[str]) -> Strategy:
        """The same of parts that know the conditions."""
        return replace(self, parts=tuple(part.for_conditions(conditions) for part in self.parts))

    def expect_captions(self, models: DiffusionModels, token_ids: Tensor, conditions: Sequence[str]) -> None:
        """Ask every part."""
        for part in self.parts:
            part.expect_captions(models, token_ids, conditions)

    def inject(self, models: DiffusionModels) -> None:
        """Set up every part.

        Raises:
            ValueError: a part finds nothing to train.
        """
        for part in self.parts:
            part.inject(models)
            part.expect_trained(models)

    def param_groups(self, models: DiffusionModels, lr: float) -> list[dict[str, Any]]:
        """The parts' groups, each at its share of `lr`."""
        rated = zip(self.parts, self.lr_ratios, strict=True)
        return [group for part, ratio in rated for group in part.param_groups(models, lr * ratio)]

    def on_step_start(self, models: DiffusionModels, step: TrainingStep) -> None:
        """Tell every part."""
        for part in self.parts:
            part.on_step_start(models, step)

    def on_batch(self, models: DiffusionModels, numbers: NDArray[np.int64]) -> None:
        """Tell every part."""
        for part in self.parts:
            part.on_batch(models, numbers)

    def penalty(self, models: DiffusionModels) -> Tensor | None:
        """The parts' penalties added up."""
        penalties = [penalty for part in self.parts if (penalty := part.penalty(models)) is not None]
        return torch.stack(penalties).sum() if penalties else None

    def on_gradients(self, models: DiffusionModels, mean: Callable[[Tensor], Tensor]) -> None:
        """Tell every part."""
        for part in self.parts:
            part.on_gradients(models, mean)

    def on_step_end(self, models: DiffusionModels, step: TrainingStep) -> Change | None:
        """What changed in any part."""
        changes = [change for part in self.parts if (change := part.on_step_end(models, step)) is not None]
        return joined(changes) if changes else None

    def training_state(self, models: DiffusionModels) -> dict[str, Tensor]:
        """The parts' states together; each names its tensors by paths in its own components."""
        return {name: tensor for part in self.parts for name, tensor in part.training_state(models).items()}

    def resume(self, models: DiffusionModels, state: Mapping[str, Tensor]) -> None:
        """Let every part take up its own."""
        for part in self.parts:
            part_state = {name: tensor for name, tensor in state.items() if name.partition(".")[0] in part.trains}
            part.resume(models, part_state)

    def ranks(self, models: DiffusionModels) -> dict[str, int]:
        """The parts' ranks together."""
        return {path: rank for part in self.parts for path, rank in part.ranks(models).items()}

    def cuts(self) -> Mapping[str, Strategy]:
        """Each part's cuts, the other parts as they are."""
        return {
            label: replace(self, parts=(*self.parts[:place], cut, *self.parts[place + 1 :]))
            for place, part in enumerate(self.parts)
            for label, cut in part.cuts().items()
        }

    @property
    def names_its_cuts(self) -> bool:
        """Whether the user named those of a part."""
        return any(part.names_its_cuts for part in self.parts)

    def merged(self, models: DiffusionModels) -> None:
        """Fold what every part added."""
        for part in self.parts:
            part.merged(models)

    def tensors(self, models: DiffusionModels) -> dict[str, Tensor]:
        """The parts' tensors together."""
        return {path: tensor for part in self.parts for path, tensor in part.tensors(models).items()}

    def fit_to(self, models: DiffusionModels, tensors: Mapping[str, Tensor]) -> None:
        """Let every part take its shapes."""
        for part in self.parts:
            part.fit_to(models, tensors)


def default_ratios(parts: Sequence[str]) -> dict[str, float]:
    """Each part's learning rate over the trial's where none is given; none is below a tenth of another, one is 1 or more."""
    ratios = {part: LR_RATIOS.get(part, 1.0) for part in parts}
    largest = max(ratios.values())
    return {part: ratio / min(largest, 1.0) for part, ratio in ratios.items()}


def joined(changes: Sequence[Change]) -> Change:
    """Changes of one step as one."""
    ranks = {path: rank for change in changes for path, rank in change.ranks.items()}
    return Change(ranks=ranks, grown=tuple(growth for change in changes for growth in change.grown))


def own_fields(part: str, hyperparameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A part's own hyperparameters without its prefix."""
    for key, value in hyperparameters.items():
        prefix, _, field = key.partition(".")
        if prefix == part and field != LR_RATIO:
            yield field, value
