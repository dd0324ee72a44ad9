"""Search spaces: module-level functions of an Optuna trial, one file each, one line in the table.

A strategy's ranges, for every space, are one entry in `search_spaces.ranges`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from search_spaces.core import core
from search_spaces.mini import mini
from search_spaces.ranges import ENCODERS, RANGES, parts_of
from search_spaces.suggest import SHARED, fields_in, searched, shared_of

SearchSpace = Callable[..., dict[str, Any]]
"""A function of an Optuna trial that suggests a configuration. `strategies=` narrows the choice, and `fixed=` has, by
strategy, values that are not suggested. It stands at the top of a module, so that plain pickle carries it."""

SEARCH_SPACES: Final[dict[str, SearchSpace]] = {"core": core, "mini": mini}


def strategies_of(space: SearchSpace) -> tuple[str, ...]:
    """Names of the strategies that a space chooses from where none is named."""
    default = inspect.signature(space).parameters["strategies"].default
    return searched(space.__name__) if default is None else tuple(default)


def published(space: SearchSpace, strategy: str) -> dict[str, float]:
    """The learning rate that others have published for a strategy, of a combination for its first part, by Optuna's name.

    Empty where none is known.
    """
    ranges = RANGES.get(parts_of(strategy)[0])
    rate = None if ranges is None else ranges.published.get(space.__name__)
    return {} if rate is None else {f"{strategy}/lr": rate}


def known_to(name: str) -> tuple[str, ...]:
    """Names of the strategies that the space of that name can be narrowed to: its own, and those only on request."""
    asked = (strategy for strategy, ranges in RANGES.items() if name in ranges.lr and ranges.on_request)
    return (*strategies_of(SEARCH_SPACES[name]), *asked)


def is_known_to(name: str, strategy: str) -> bool:
    """Whether a space can suggest a strategy: one that it knows, or a combination of such, as in `dora+text_encoder`."""
    known = known_to(name)
    return strategy in known or ("+" in strategy and all(part in known for part in strategy.split("+")))


__all__ = [
    "ENCODERS", "SEARCH_SPACES", "SHARED", "SearchSpace", "fields_in", "is_known_to", "known_to", "published", "shared_of", "strategies_of",
]  # fmt: skip
