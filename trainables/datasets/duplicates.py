"""One picture in two splits: the same pixels, or nearly the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import SPLITS

NUM_TABLES, NUM_KEY_BITS = 16, 48
"""Near copies differ in few of the 256 bits: the same 48 of them, drawn 16 times, agree at least once in 98 % of pairs
with 8 bits of difference, and once in 50,000 of pairs with 90, as different films have."""
MAX_BITS_APART = 15
NEIGHBOURS = 32
"""Films of one key that each film is compared with, so that many that look alike cost no more than their number."""
SAME_PICTURE = 0.99
Confirm = Callable[[int], NDArray[np.uint8]]
"""The small grey picture of a film by its position."""


def copies_to_drop(pixels: Sequence[bytes], splits: Sequence[str]) -> dict[int, int]:
    """Films whose picture is in a later split as well, with the first such film.

    Args:
        pixels: hash of each film's pixels.
        splits: of each film.

    Returns:
        Position of each film to drop, training before validation before test, to that of the film that stays.
    """
    last: dict[bytes, int] = {}
    for position, picture in enumerate(pixels):
        kept = last.setdefault(picture, position)
        if SPLITS.index(splits[position]) > SPLITS.index(splits[kept]):
            last[picture] = position
    return {
        position: last[picture] for position, picture in enumerate(pixels) if splits[last[picture]] != splits[position]
    }


def copies_to_keep(pixels: Sequence[bytes], splits: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of films of one split with the same picture: the first that has it, and each other one.

    Args:
        pixels: hash of each film's pixels.
        splits: of each film.
    """
    first: dict[tuple[str, bytes], int] = {}
    pairs = [(first.setdefault(key, at), at) for at, key in enumerate(zip(splits, pixels, strict=True))]
    return [(kept, other) for kept, other in pairs if kept != other]


def near_copies(looks: Sequence[bytes], splits: Sequence[str], small: Confirm) -> list[tuple[int, int, float]]:
    """Pairs of films in two splits that are nearly the same picture.

    Args:
        looks: what each film roughly looks like, 32 bytes.
        splits: of each film.
        small: gives a film's picture, all of one size.

    Returns:
        Two positions and the correlation of their pixels, at least `SAME_PICTURE`, for each pair.
    """
    read = lru_cache(maxsize=256)(small)
    pairs = []
    for first, other in sorted(_proposed(looks, splits)):
        alike = _correlation(read(first), read(other))
        if alike >= SAME_PICTURE:
            pairs.append((first, other, alike))
    return pairs


def _proposed(looks: Sequence[bytes], splits: Sequence[str]) -> set[tuple[int, int]]:
    if not looks:
        return set()
    packed = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1)
    bits, words = np.unpackbits(packed, axis=1), packed.view(np.uint64)
    places = np.array([SPLITS.index(split) for split in splits])
    pairs: set[tuple[int, int]] = set()
    for key_bits in _key_bits(bits.shape[1]):
        for first, other in _of_one_key(bits[:, key_bits]):
            apart = np.bitwise_count(words[first] ^ words[other]).sum(axis=1)
            near = (apart <= MAX_BITS_APART) & (places[first] != places[other])
            pairs.update(zip(first[near].tolist(), other[near].tolist(), strict=True))
    return pairs


def _key_bits(num_bits: int) -> Iterator[NDArray[np.int64]]:
    """The same choices in every run."""
    random = np.random.default_rng(0)
    for _ in range(NUM_TABLES):
        yield random.choice(num_bits, NUM_KEY_BITS, replace=False)


def _of_one_key(keys: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of films of equal keys: each with the next one of its key, then with the one after that, and so on."""
    numbers = np.zeros((len(keys), 8), np.uint8)
    numbers[:, : NUM_KEY_BITS // 8] = np.packbits(keys, axis=1)
    of_film = numbers.view(np.uint64).reshape(-1)
    order = np.argsort(of_film, kind="stable")
    in_order = of_film[order]
    for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        same = np.flatnonzero(in_order[step:] == in_order[:-step])
        if not len(same):
            return
        yield order[same], order[same + step]


def _correlation(first: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(first.reshape(-1), other.reshape(-1))[0, 1])
