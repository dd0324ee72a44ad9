"""Every strategy on one base model, at the hyperparameters that decide its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainables.base_models.models import DiffusionModels
from trainables.strategies import COMBINATIONS, STRATEGIES, hyperparameters_of, make_strategy
from trainables.strategies.footprint import Footprint, footprint


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One strategy at the hyperparameters that decide its size; what it costs, or why this base cannot take it.

    Attributes:
        strategy: its name in the table.
        chosen: the hyperparameters that decide its size, by name.
        footprint: what it costs; None where the base cannot take it.
        problem: why the base cannot take it; None where it can.
    """

    strategy: str
    chosen: dict[str, Any]
    footprint: Footprint | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry as programs read it."""
        if self.footprint is None:
            return {"strategy": self.strategy, "hyperparameters": self.chosen, "problem": self.problem}
        return self.footprint.as_dict()


def choices(rank: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every strategy with each value of the hyperparameters that decide how much it trains.

    Args:
        rank: of those strategies that have one.
    """
    for name in (*STRATEGIES, *COMBINATIONS):
        fixed = {key: rank for key in hyperparameters_of(name) if key.rpartition(".")[2] == "rank"}
        sized = STRATEGIES[name].sized if name in STRATEGIES else {}
        varied = [{**fixed, key: value} for key, values in sized.items() for value in values]
        for chosen in varied or [fixed]:
            yield name, chosen


def overview(base: DiffusionModels, rank: int) -> list[Entry]:
    """Every strategy's entry on one base model, in the table's order.

    Args:
        base: which may be on the meta device; it stays as it is.
        rank: of those strategies that have one.
    """
    entries = []
    for name, chosen in choices(rank):
        strategy = make_strategy(name, chosen)
        try:
            entries.append(Entry(strategy=name, chosen=chosen, footprint=footprint(base.sharing(), strategy)))
        except ValueError as error:
            entries.append(Entry(strategy=name, chosen=chosen, problem=str(error)))
    return entries
