"""Search spaces: module-level functions of an Optuna trial, one file each, one line in the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from search_spaces.core import core
from search_spaces.mini import mini

SearchSpace = Callable[..., dict[str, Any]]
"""Called with an Optuna trial, and `strategies=` to narrow the choice; module-level, so plain pickle carries it."""

SEARCH_SPACES: Final[dict[str, SearchSpace]] = {"core": core, "mini": mini}


def strategies_of(space: SearchSpace) -> tuple[str, ...]:
    """Names of the strategies that a space chooses from."""
    return tuple(inspect.signature(space).parameters["strategies"].default)
