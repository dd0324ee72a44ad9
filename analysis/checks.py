"""Checks of input, and the answer to a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


def expect(holds: bool, rule: str, came: object, remedy: str) -> None:
    """Raise a ValueError that names the rule, what came and the remedy, unless the rule holds.

    Args:
        holds: whether the rule holds.
        rule: what must hold, in the words of a message.
        came: what is there instead.
        remedy: what to do, in whole sentences.
    """
    if not holds:
        raise ValueError(f"{rule}, but got {came}. {remedy}")


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
        raise ValueError(unknown_name(what, name, table))
    return table[name]


def unknown_name(what: str, name: str, valid: Iterable[str]) -> str:
    """Message that answers an unknown name with the nearest valid ones, or with all where none is near.

    Args:
        what: what the names name.
        name: the unknown one.
        valid: all that there are.
    """
    names = sorted(valid)
    near = did_you_mean(name, names)
    choice = f"{near} Valid:" if near else "Choose one of:"
    remedy = f"{choice} {', '.join(names)}." if names else "There is none; leave it out."
    return f"`{what}` must be a known name, but got {name!r}. {remedy}"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A question that proposes the most similar valid names, large or small letters alike; empty where none is near.

    Names with a dot that end as the unknown one come before all others.
    """
    spelt = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower(), spelt, n=3, cutoff=0.5)
    near = [repr(candidate) for candidate in spelt.values() if candidate.rpartition(".")[2] == name]
    near = near or [repr(spelt[spelling]) for spelling in close]
    return f"Did you mean {' or '.join(near)}?" if near else ""


def finite_rows(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """float64[n, d] of finite numbers.

    Args:
        values: real[n, d], one row an image or a prompt.
        name: what to call the array in a message.

    Raises:
        ValueError: the array is empty, not two-dimensional, or holds NaN or infinity.
    """
    rows = np.asarray(values, dtype=np.float64)
    expect(rows.ndim == 2 and rows.size > 0, f"`{name}` must be [n, d], n and d >= 1", list(rows.shape), "Give rows.")
    bad = ~np.isfinite(rows).all(axis=1)
    came = f"NaN or infinity in {np.count_nonzero(bad)} of {len(rows)} rows, first in row {int(np.argmax(bad))}"
    expect(not bad.any(), f"`{name}` must be finite", came, "Look for what overflowed before.")
    return rows


def finite_values(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """float64[n] of finite numbers, n >= 2; otherwise a ValueError that calls the array `name`."""
    array = np.asarray(values, dtype=np.float64)
    expect(array.ndim == 1 and len(array) > 1, f"`{name}` must be [n], n >= 2", list(array.shape), "Give more values.")
    came = f"{np.count_nonzero(~np.isfinite(array))} that are not"
    expect(bool(np.isfinite(array).all()), f"`{name}` must be finite", came, "Look for what overflowed before.")
    return array


def label_table(labels: ArrayLike, shape: tuple[int, int], name: str = "labels") -> NDArray[np.bool_]:
    """bool[n, c] with one row an image and one column a condition.

    Args:
        labels: bool[n, c], or numbers that are 0 or 1.
        shape: n and c that are expected.
        name: what to call the array in a message.

    Raises:
        ValueError: the shape is another, or a value is neither 0 nor 1.
    """
    table: NDArray[Any] = np.asarray(labels)
    expect(
        table.shape == shape, f"`{name}` must be {list(shape)}, images by conditions", list(table.shape), "Fit them."
    )
    if table.dtype == np.bool_:
        return table
    expect(bool(np.isin(table, (0, 1)).all()), f"`{name}` must be 0 or 1", "other values", "Settle uncertain labels.")
    binary: NDArray[np.bool_] = table.astype(np.bool_)
    return binary


def both_classes(labels: NDArray[np.bool_], conditions: Sequence[str], name: str) -> None:
    """Refuse labels bool[n, c] of which a condition is always or never present.

    Args:
        labels: bool[n, c].
        conditions: names of the c columns.
        name: what to call the labels in a message.
    """
    counts = labels.sum(axis=0)
    for condition, count in zip(conditions, counts.tolist(), strict=True):
        expect(
            0 < count < len(labels),
            f"`{name}` must hold images with and without {condition!r}",
            f"{count} with it of {len(labels)}",
            "Add images, or leave the condition out.",
        )


def unique_names(conditions: Sequence[str]) -> tuple[str, ...]:
    """The names of the conditions, refused where there is none or one comes twice."""
    names = tuple(conditions)
    rule = "`conditions` must be names, each once"
    expect(0 < len(names) == len(set(names)) and not isinstance(conditions, str), rule, conditions, "List each once.")
    return names
