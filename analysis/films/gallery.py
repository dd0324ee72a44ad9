"""Nearest neighbours of images among others: by features, and by pixels after the best small shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.checks import expect, finite_rows
from analysis.films.labelled import check_images, resize

BLOCK = 256
REFERENCES = 4096
"""References that queries are compared with at a time: memory holds so many, and not all."""
COMPARED_PX = 64
REACH_PX = 4
"""Films are compared at 64 px, where each may be moved by a sixteenth of its side in both directions."""


class Films(Protocol):
    """Images that are made, or read, when they are asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Some of them by slice, int64[k] or bool[n], uint8[k, H, W], square."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images as they are compared.

    Attributes:
        features: float[n, d], no row all zero; they may lie in a file.
        images: uint8[n, H, W], square, to compare pixels too; `compared` makes them as small as is enough.
        patients: the patient of each image; without it every image counts as a patient of its own.

    Raises:
        ValueError: shapes do not match, or a feature row is all zero or not finite.
    """

    features: NDArray[np.floating[Any]]
    images: NDArray[np.uint8] | Films | None = None
    patients: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check everything once."""
        features = np.asarray(self.features)
        for start in range(0, max(1, len(features)), REFERENCES):
            rows = finite_rows(features[start : start + REFERENCES], "features")
            empty = start + np.flatnonzero(~rows.any(axis=1))
            came = f"{len(empty)} all-zero rows, first in row {empty[:1].tolist()}"
            expect(not len(empty), "`features` must not be zero", came, "Look for blank images or a broken extractor.")
        object.__setattr__(self, "features", features)
        if isinstance(self.images, np.ndarray):
            check_images(self.images)
        for name, part in (("images", self.images), ("patients", self.patients)):
            count = len(features) if part is None else len(part)
            expect(
                count == len(features), f"`{name}` must be {len(features)}, one a row of features", count, "Fit them."
            )

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64]) -> Gallery:
        """The images of these rows, int64[k] or bool[n]."""
        images = None if self.images is None else self.images[rows]
        return Gallery(self.features[rows], images, tuple(self.groups()[rows].tolist()))

    def groups(self) -> NDArray[np.str_]:
        """The patient of each image, str[n]."""
        return np.array([str(row) for row in range(len(self))] if self.patients is None else self.patients)


@dataclass(frozen=True, eq=False)
class NearestFilms:
    """The nearest reference of each query.

    Attributes:
        distances: float64[n], at least 0; 0 is a copy.
        rows: int64[n] of the references.
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]


def nearest_films(queries: Gallery, references: Gallery, space: str, *, other_patients: bool = False) -> NearestFilms:
    """The nearest reference of each query.

    Args:
        queries: n images.
        references: m images.
        space: `features`, the Euclidean distance of features scaled to length 1; or `pixels`, the same of films of
            mean 0 and length 1 after the shift by up to `REACH_PX` that brings the query nearest.
        other_patients: leave out references of the query's own patient; then there must be others.

    Returns:
        Distances in [0, 2], where 2 - d^2 is twice the correlation.
    """
    best, rows = np.full(len(queries), -np.inf), np.zeros(len(queries), np.int64)
    groups, reference_groups = queries.groups(), references.groups()
    for query, reference, block in _similarities(queries, references, space):
        if other_patients:
            block[groups[query, None] == reference_groups[reference]] = -np.inf
        nearest = block.argmax(axis=1)
        cosines = block[np.arange(len(block)), nearest]
        nearer = cosines > best[query]  # of equals the first, however references are cut
        rows[query] = np.where(nearer, nearest + reference.start, rows[query])
        best[query] = np.where(nearer, cosines, best[query])
    return NearestFilms(np.sqrt(np.clip(2 - 2 * best, 0, None)), rows)


def _similarities(
    queries: Gallery, references: Gallery, space: str
) -> Iterator[tuple[slice, slice, NDArray[np.float64]]]:
    """Cosines of some queries with some references, block by block, all pairs once."""
    similar = _pixel_similarities if space == "pixels" else _feature_similarities
    for reference in _blocks(len(references), REFERENCES):
        for query, block in similar(queries, references, reference):
            yield query, reference, block


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _feature_similarities(
    queries: Gallery, references: Gallery, reference: slice
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    targets = _unit(references.features[reference]).T
    for query in _blocks(len(queries), BLOCK):
        yield query, _unit(queries.features[query]) @ targets


def _unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


@torch.inference_mode()
def _pixel_similarities(
    queries: Gallery, references: Gallery, reference: slice
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Correlations of the references' middles with all windows of the queries, the best of each pair."""
    inner = COMPARED_PX - 2 * REACH_PX
    middle = slice(REACH_PX, REACH_PX + inner)
    middles = _correlated(_small(references, reference)[:, middle, middle]).T
    for query in _blocks(len(queries), BLOCK):
        moved = _small(queries, query)
        best = torch.full((len(moved), middles.shape[1]), -1.0)
        windows = moved.unfold(1, inner, 1).unfold(2, inner, 1)
        for down in range(windows.shape[1]):
            for right in range(windows.shape[2]):
                best = torch.maximum(best, _correlated(windows[:, down, right]) @ middles)
        yield query, best.double().numpy()


def _small(gallery: Gallery, rows: slice) -> Tensor:
    """float32[n, 64, 64]."""
    if gallery.images is None:
        raise ValueError("`images` must be given to compare pixels, but got None. Give them, or compare features.")
    return torch.from_numpy(compared(gallery.images[rows])).float()


def compared(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Films uint8[n, H, W] at the size at which they are compared, uint8[n, 64, 64]; made smaller only once."""
    small: NDArray[np.uint8] = resize(images, COMPARED_PX).numpy()
    return small


def _correlated(films: Tensor) -> Tensor:
    """[n, h, w] to rows [n, h * w] of mean 0 and length 1; blank films become 0, which resembles nothing."""
    rows = films.reshape(len(films), -1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    scaled: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-6)
    return scaled
