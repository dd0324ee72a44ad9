"""A configuration drawn from an Optuna trial: strategy, its own hyperparameters, learning rates, batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from optuna import Trial

from search_spaces.draw import Draw
from search_spaces.ranges import RANGES, SEARCHED_COMBINATIONS, Bounds, parts_of

Fixed = Mapping[str, Mapping[str, Any]]
NOTHING: Final[Fixed] = {}
SHARED: Final = ("lr", "batch_size")
"""What every strategy is given besides its own fields."""


def searched(space: str) -> tuple[str, ...]:
    """The strategies that a space chooses from where none is named: all that it has, but those only on request.

    Combinations are among them where the space has all their parts.
    """
    strategies = [name for name, ranges in RANGES.items() if space in ranges.lr and not ranges.on_request]
    return (*strategies, *(name for name in SEARCHED_COMBINATIONS if set(parts_of(name)) <= set(strategies)))


def suggest_choice(
    trial: Trial, strategies: Sequence[str] | None, fixed: Fixed, *, space: str, batch_sizes: Sequence[int]
) -> dict[str, Any]:
    """Suggest a strategy, its own hyperparameters, its learning rate and a batch size.

    Args:
        trial: Optuna's record of the trial.
        strategies: names to choose from; None: all that are searched.
        fixed: by strategy, hyperparameters that are not suggested but have these values; `lr` and `batch_size` likewise,
            and in a combination `<part>.lr`.
        space: whose learning rates are taken.
        batch_sizes: images of one optimiser step over all workers, to choose from.

    Returns:
        `{"strategy": {"name": ..., <its fields>}, "lr": ..., "batch_size": ...}`. The learning rate of a combination is
        that of its first part; its fields have the others' as ratios to it.
    """
    name = trial.suggest_categorical("strategy", tuple(searched(space) if strategies is None else strategies))
    parts, draw = parts_of(name), Draw(trial, name, fixed.get(name, {}))
    fields = _suggest_fields(draw, parts)
    rates = {part: RANGES[part].lr[space] for part in parts}
    lr = _suggest_lr(draw, parts, rates[parts[0]])
    ratios = _suggest_ratios(draw, parts, lr, rates)
    return {
        "strategy": {"name": name, **fields, **ratios, **fields_in(name, draw.fixed)},
        "lr": lr,
        "batch_size": draw.batch_size(batch_sizes),
    }


def fields_in(name: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The fixed values that are fields of the strategy itself, and not the trial's learning rate or batch size."""
    shared = shared_of(name)
    return {key: value for key, value in fixed.items() if key not in shared}


def shared_of(name: str) -> tuple[str, ...]:
    """What can be fixed for a strategy besides its fields: the batch size, and learning rates, of a combination by part."""
    parts = parts_of(name)
    return SHARED if len(parts) == 1 else (*(f"{part}.lr" for part in parts), "batch_size")


def _suggest_lr(draw: Draw, parts: Sequence[str], bounds: Bounds) -> float:
    """The trial's learning rate: the first part's, recorded as the whole combination's."""
    part_draw = draw if len(parts) == 1 else replace(draw.of_part(parts[0], parts), prefix=draw.prefix)
    return part_draw.rate(bounds)


def _suggest_fields(draw: Draw, parts: Sequence[str]) -> dict[str, Any]:
    """A strategy's own hyperparameters; of a combination those of its parts."""
    if len(parts) == 1:
        return RANGES[parts[0]].fields(draw)
    return {
        f"{part}.{field}": value
        for part in parts
        for field, value in RANGES[part].fields(draw.of_part(part, parts)).items()
    }


def _suggest_ratios(draw: Draw, parts: Sequence[str], lr: float, rates: Mapping[str, Bounds]) -> dict[str, float]:
    """How the learning rates of a combination's parts compare to the trial's, by field, where that is not fixed.

    The trial's is the first part's own, whose ratio would otherwise have its default. The others are drawn from the
    ranges that they have alone: shares of the trial's would leave them in one order of the parts or another.
    """
    if len(parts) == 1:
        return {}
    drawn = [part for part in parts[1:] if f"{part}.lr_ratio" not in draw.fixed]
    chosen = {part: draw.of_part(part, parts).rate(rates[part]) for part in drawn}
    return {f"{parts[0]}.lr_ratio": 1.0, **{f"{part}.lr_ratio": rate / lr for part, rate in chosen.items()}}
