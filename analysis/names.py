"""Answers to unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of a table.

    Args:
        table: valid names and what they stand for.
        name: the name asked for.
        what: what the names name, for the message.

    Raises:
        ValueError: `name` is not in the table; the message gives the nearest and all valid names.
    """
    if name not in table:
        raise ValueError(f"`{what}` must be one of {', '.join(sorted(table))}, but got {name!r}.{nearest(table, name)}")
    return table[name]


def nearest(names: Iterable[str], name: str) -> str:
    """A sentence that proposes the most similar valid name, or nothing where none is similar."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else " Choose one of these."
