"""Names: answering an unknown one with the nearest valid ones, and telling none of this machine's folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def expect_known(rule: str, came: object, valid: Iterable[str]) -> None:
    """Refuse what is no name in a table, whatever its type.

    Args:
        rule: what the name is of, such as `targets`.
        came: what was given.
        valid: all names that there are.

    Raises:
        ValueError: it is not.
    """
    names = tuple(valid)
    if not isinstance(came, str) or came not in names:
        raise unknown_name(rule, came, names)


def unknown_name(rule: str, came: object, valid: Iterable[str]) -> ValueError:
    """The error for a name that is not in a table.

    Args:
        rule: what the name is, such as `strategy`; it is set in backticks.
        came: what is no name in it.
        valid: the names in the table.
    """
    names = sorted(valid)
    spelt = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(came).lower(), spelt, n=3, cutoff=0.5)
    near = [repr(name) for name in names if name.rpartition(".")[2] == came] or [
        repr(spelt[spelling]) for spelling in close
    ]
    choice = f"Did you mean {' or '.join(near)}? Valid:" if near else "Choose one of:"
    remedy = f"{choice} {', '.join(names)}." if names else "There is none; leave it out."
    return ValueError(f"`{rule}` must be a known name, but got {came!r}. {remedy}")


def expect(holds: bool, rule: str, came: str, remedy: str) -> None:
    """Raise a ValueError that names the rule, what came and the remedy, unless the rule holds.

    Args:
        holds: whether the rule holds.
        rule: what must hold, in the words of a message.
        came: what is there instead.
        remedy: what to do, in whole sentences.
    """
    if not holds:
        raise ValueError(f"{rule}, but got {came}. {remedy}")


def without_folders(value: Any) -> Any:
    """A value of JSON's kinds in which paths of this machine are cut down to their last name, for what leaves it."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(each) for each in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name or value
    return value
