"""Low-rank updates whose first rows and columns are adapters of their own: they may be cut to smaller ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.naming import expect
from trainables.strategies.base import Strategy
from trainables.strategies.low_rank import LowRankStrategy


@dataclass(frozen=True, kw_only=True)
class CuttableStrategy(LowRankStrategy):
    """One training of a rank that yields adapters of smaller ranks too.

    Attributes:
        evaluated_ranks: ranks at which the adapter is cut and scored too, all of them. None: the powers of two below `rank`,
            of which a sweep scores the smallest, and each other one that may add something to what the training gives.
    """

    evaluated_ranks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ranks = self.evaluated_ranks
        if ranks is None:
            return
        rule = "`evaluated_ranks` must be whole numbers, at least 1"
        remedy = "Try [1, 2, 4], or leave them out."
        fits = isinstance(ranks, Sequence) and all(type(rank) is int and rank >= 1 for rank in ranks)
        expect(fits, rule, repr(ranks), remedy)
        object.__setattr__(self, "evaluated_ranks", tuple(ranks))

    def smaller_ranks(self) -> list[int]:
        """The ranks below this one at which it may be cut, each once, ascending."""
        if self.evaluated_ranks is None:
            return list(powers_of_two(below=self.rank))
        return sorted({rank for rank in self.evaluated_ranks if rank < self.rank})

    def cut_to(self, rank: int) -> Self:
        """The strategy whose adapter is the first rows and columns of this one's."""
        return replace(self, rank=rank, evaluated_ranks=())

    def cuts(self) -> Mapping[str, Strategy]:
        """The same at each of the smaller ranks, by labels such as `rank2`."""
        return {f"rank{rank}": self.cut_to(rank) for rank in self.smaller_ranks()}

    @property
    def names_its_cuts(self) -> bool:
        """Whether `evaluated_ranks` are given."""
        return self.evaluated_ranks is not None

    def ranks(self, models: DiffusionModels) -> dict[str, int]:
        """`rank` in every layer, also of models that have more of them."""
        return dict.fromkeys(self.layers(models), self.rank)

    def tensors(self, models: DiffusionModels) -> dict[str, Tensor]:
        """The first `rank` rows and columns, also of models that have more of them."""
        return {
            f"{path}.{name}": tensor
            for path, layer in self.layers(models).items()
            for name, tensor in {
                "lora_A": layer.lora_A.detach()[: self.rank],
                "lora_B": layer.lora_B.detach()[:, : self.rank],
            }.items()
        }


def powers_of_two(*, below: int) -> tuple[int, ...]:
    """1, 2, 4, ... below a number."""
    return tuple(2**exponent for exponent in range((below - 1).bit_length()))
