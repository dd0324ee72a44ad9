"""Costs of a configuration that are known before it is trained, and the limits that the user sets to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from optuna.trial import FixedTrial

from analysis.front.objectives import OPERATIONS
from search_spaces import SearchSpace
from trainables.base_models.models import DiffusionModels
from trainables.strategies import make_strategy
from trainables.strategies.composed import LR_RATIO
from trainables.strategies.footprint import footprint
from trainables.strategies.operations import operations_per_image

MIB: Final = 2**20
Choice = Mapping[str, Any]
"""What a search space suggests."""


@dataclass(frozen=True, kw_only=True)
class KnownCosts:
    """Trainable parameters, adapter size and operations of a configuration, exact from shapes when training begins.

    Attributes:
        fresh: gives the base model on the meta device anew.
        conditions: of the data, for strategies that have tokens for them.
        cached: whether outputs of frozen encoders are cached, as in training.
    """

    fresh: Callable[[], DiffusionModels]
    conditions: tuple[str, ...]
    cached: bool = True
    _kept: dict[str, dict[str, float]] = field(default_factory=dict)

    def of(self, choice: Choice, *, operations: bool = True) -> Mapping[str, float]:
        """`trainable_parameters`, `adapter_mib`, `operations_per_image` of a configuration.

        They are counted once for all configurations that have the same shapes, whatever their learning rates.

        Args:
            choice: the configuration.
            operations: whether to count them, which takes most of the time.

        Raises:
            ValueError: the base model has nothing that the strategy could train.
        """
        shaping = {name: value for name, value in choice["strategy"].items() if not name.endswith(LR_RATIO)}
        key = json.dumps([shaping, operations], sort_keys=True, default=str)
        if key not in self._kept:
            self._kept[key] = self._count(make_strategy(shaping.pop("name"), shaping), operations)
        return self._kept[key]

    def _count(self, strategy: Any, operations: bool) -> dict[str, float]:
        models, strategy = self.fresh(), strategy.for_conditions(self.conditions)
        sizes = footprint(models, strategy)
        counted = {
            "trainable_parameters": float(sizes.trainable_parameters),
            "adapter_mib": sizes.adapter_bytes / MIB,
        }
        if operations:
            counted[OPERATIONS] = float(operations_per_image(models, strategy, cached=self.cached))
        return counted


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which configurations are not to be tried.

    Attributes:
        bounds: the most that a cost may be, by its name; empty: every configuration may be tried.
        costs: knows what a configuration costs.
    """

    bounds: Mapping[str, float]
    costs: KnownCosts

    def excess(self, choice: Choice) -> dict[str, float]:
        """How far a configuration is over each limit, as a share of the limit; 0 or below where it is within."""
        if not self.bounds:
            return {}
        known = self._known(choice)
        return {name: known[name] / bound - 1 for name, bound in self.bounds.items()}

    def _known(self, choice: Choice) -> Mapping[str, float]:
        return self.costs.of(choice, operations=OPERATIONS in self.bounds)

    def cheapest(self, space: SearchSpace, strategy: str, fixed: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
        """What a strategy costs at least within a space, and whether a configuration of it is within all limits.

        Args:
            space: the search space.
            strategy: its name.
            fixed: by strategy, values that are not drawn.

        Returns:
            The least of each limited cost over the smallest and the largest choices of every hyperparameter, and whether
            one of the two is within the limits.
        """
        both = first_and_last(space, strategy, fixed)
        known = [self._known(choice) for choice in both]
        least = {name: min(costs[name] for costs in known) for name in self.bounds}
        return least, any(max(self.excess(choice).values(), default=0.0) <= 0 for choice in both)


class _End(FixedTrial):
    """A trial that is given the first or the last choice of everything."""

    def __init__(self, *, last: bool) -> None:
        super().__init__({})
        self._index = -1 if last else 0

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The first or the last of them."""
        return choices[self._index]

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """The lowest."""
        return low


def first_and_last(space: SearchSpace, strategy: str, fixed: Mapping[str, Any]) -> tuple[Choice, Choice]:
    """The configurations of a strategy's first and of its last choice of everything.

    Args:
        space: the search space.
        strategy: its name.
        fixed: by strategy, values that are not drawn.
    """
    more = {"fixed": fixed} if fixed else {}
    first, last = (space(_End(last=last), strategies=(strategy,), **more) for last in (False, True))
    return first, last


def strategies_within(
    limits: Limits, space: SearchSpace, candidates: Sequence[str], fixed: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The strategies that can meet the limits, and of each other one why it cannot.

    Args:
        limits: of the sweep.
        space: the search space.
        candidates: names of strategies.
        fixed: by strategy, values that are not drawn.

    Raises:
        ValueError: none can.
    """
    if not limits.bounds:
        return tuple(candidates), {}
    cheapest = {name: limits.cheapest(space, name, fixed) for name in candidates}
    refused = {name: _arithmetic(least, limits.bounds) for name, (least, fits) in cheapest.items() if not fits}
    if len(refused) == len(cheapest):
        raise ValueError(
            "`search.limits` must leave a strategy to be tried, but got limits that none meets: "
            f"{'; '.join(f'{name} has at least {why}' for name, why in refused.items())}. Raise a limit, or name other "
            "strategies in search.strategies."
        )
    return tuple(name for name in candidates if name not in refused), refused


def _arithmetic(least: Mapping[str, float], bounds: Mapping[str, float]) -> str:
    over = {name: value for name, value in least.items() if value > bounds[name]} or least
    return " and ".join(f"{name} {_figure(value)}, of {_figure(bounds[name])} allowed" for name, value in over.items())


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
