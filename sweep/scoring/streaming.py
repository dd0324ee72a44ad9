"""Films to features batch by batch, so that memory holds a batch of them and those that are to be shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.features.base import BATCH_SIZE, FeatureExtractor
from analysis.films.gallery import COMPARED_PX
from analysis.films.labelled import resize
from trainables.datasets.store import PreparedSplit

Films = NDArray[np.uint8]
Chosen = NDArray[np.bool_]
"""Which films are meant, one entry a film."""


def regrouped(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same films in the same order, `size` at a time and at last what is left."""
    remainder: Tensor | None = None
    for batch in batches:
        remainder = batch if remainder is None else torch.cat([remainder, batch])
        while len(remainder) >= size:
            yield remainder[:size]
            remainder = remainder[size:]
    if remainder is not None and len(remainder):
        yield remainder


def as_grey(films: Tensor) -> Tensor:
    """Grey films uint8[n, H, W], as radiographs are, of coloured ones [n, H, W, 3] by their mean, or as they came."""
    return films if films.ndim == 3 else films.mean(dim=-1, dtype=torch.float32).round().to(torch.uint8)


class Drawn(NamedTuple):
    """Some films, as many of them as are needed of each kind.

    Attributes:
        grey: uint8[n, H, W], all of them in grey.
        shown: uint8[m, H, W] or [m, H, W, 3], those to show as they are.
    """

    grey: Tensor
    shown: Films


def drawn(batches: Iterable[Tensor], shown: Chosen) -> Iterator[Drawn]:
    """Batches of films in grey, which is all that features need, and some as they are.

    Films become grey where they are: a third of their bytes leave the device.

    Args:
        batches: uint8[., H, W] or [., H, W, 3], n films in all.
        shown: bool[n], films that are to be shown.
    """
    start = 0
    for films in batches:
        yield Drawn(as_grey(films), _chosen(films, shown[start : start + len(films)]))
        start += len(films)


def extract_and_keep(
    parts: Iterable[Drawn], extractor: FeatureExtractor, wanted: Chosen
) -> tuple[NDArray[np.float32], Films]:
    """Features of some films in grey, and the pixels of those that are shown, in one pass.

    Features are extracted by as many films as the extractor takes at once, so that they are the same to the bit as if
    all had been given to it together.

    Args:
        parts: n films in all.
        extractor: makes the features.
        wanted: bool[n], films whose features are wanted.

    Returns:
        float32[wanted, dim] and the shown films.
    """
    kept: list[Films] = []

    def grey() -> Iterator[Tensor]:
        for part in parts:
            kept.append(part.shown)
            yield part.grey

    features, start = [np.empty((0, extractor.dim), np.float32)], 0
    for films in regrouped(grey(), BATCH_SIZE):
        place = slice(start, start + len(films))
        start += len(films)
        if wanted[place].any():
            features.append(extractor.extract(_chosen(films, wanted[place])))
    return np.concatenate(features), np.concatenate(kept)


def _chosen(films: Tensor, which: Chosen) -> Films:
    """Some films in the host's memory."""
    chosen: Films = films[torch.from_numpy(which).to(films.device)].cpu().numpy()
    return chosen


class ComparedFilms:
    """The films of a split at the size at which neighbours are searched, read and made small when they are asked for.

    Args:
        split: the films.
    """

    def __init__(self, split: PreparedSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Films:
        """Some of them, uint8[n, 64, 64]."""
        return films_of_side(self._split.images, np.arange(len(self))[rows], COMPARED_PX)


def films_of_side(
    read: Callable[[NDArray[np.int64]], Films],
    rows: NDArray[np.int64],
    side_px: int,
    shrink: Callable[[Films], Films] | None = None,
) -> Films:
    """Some films at another size, uint8[n, side_px, side_px]: memory holds few of them as they are.

    Args:
        read: gives the films of some rows as they are.
        rows: int64[n] of them.
        side_px: the size.
        shrink: makes films of that size; None: as classifiers see them.
    """
    films = np.empty((len(rows), side_px, side_px), np.uint8)
    for start in range(0, len(rows), BATCH_SIZE):
        some = read(rows[start : start + BATCH_SIZE])
        films[start : start + len(some)] = shrink(some) if shrink else resize(some, side_px).numpy()
    return films


def extract_split(split: PreparedSplit, extractor: FeatureExtractor) -> NDArray[np.float32]:
    """Features float32[n, dim] of every film of a split."""
    features = np.empty((len(split), extractor.dim), np.float32)
    for start in range(0, len(split), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(split)))
        features[rows] = extractor.extract(split.images(rows))
    return features
