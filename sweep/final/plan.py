"""Which films are generated: one for the caption of each real film that it stands against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.scoring.identity import plan_digest
from trainables.datasets.store import PreparedSplit


@dataclass(frozen=True, kw_only=True)
class CaptionPlan:
    """Generated films mirror real ones, caption by caption: as many of each condition and of each combination.

    Attributes:
        rows: int64[n], the real films whose captions are the prompts.
        labels: the scored conditions that each caption names.
        prompts: the captions.
        seeds: one a film, for its starting noise; the same for every finalist.
    """

    rows: NDArray[np.int64]
    labels: tuple[tuple[str, ...], ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """Hash of what is generated."""
        return plan_digest(self.prompts, self.seeds)

    def table(self, conditions: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these conditions each caption names, bool[n, c]."""
        return label_rows(self.labels, conditions)


def plan_captions(data: PreparedSplit, conditions: Sequence[str], per_condition: int, seed: int) -> CaptionPlan:
    """Films drawn for each condition, at most so many; a film that shows several counts once.

    Args:
        data: the split that is mirrored.
        conditions: those that are scored; films with none of them are left out.
        per_condition: the most that are drawn for one condition; others that show it too come on top.
        seed: chooses films and noise.
    """
    drawn = [
        np.random.default_rng((seed, number)).permutation(data.indices_with(condition))[:per_condition]
        for number, condition in enumerate(conditions)
    ]
    rows = np.unique(np.concatenate(drawn)).astype(np.int64)
    seeds = np.random.SeedSequence((seed, len(data))).generate_state(len(rows), np.uint32)
    return CaptionPlan(
        rows=rows,
        labels=tuple(tuple(name for name in data.conditions[row] if name in conditions) for row in rows),
        prompts=tuple(data.prompts[row] for row in rows),
        seeds=tuple(int(value) for value in seeds),
    )


def label_rows(labels: Sequence[Sequence[str]], conditions: Sequence[str]) -> NDArray[np.bool_]:
    """Names as a table, bool[n, c]."""
    return np.array([[name in own for name in conditions] for own in labels], bool).reshape(len(labels), -1)


def two_sided(tables: Sequence[NDArray[np.bool_]], conditions: Sequence[str]) -> tuple[str, ...]:
    """The conditions that every table has on some films and lacks on others."""
    fits = np.all([table.any(axis=0) & ~table.all(axis=0) for table in tables], axis=0)
    return tuple(name for name, both in zip(conditions, fits, strict=True) if both)
