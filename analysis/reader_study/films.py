"""The films of a study: half generated, half real ones of the same captions, in random order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.checks import expect
from analysis.final_scores import EVALUATION
from analysis.run_folder import RunFolder

FILMS = "films.npz"
"""What a final evaluation leaves of a finalist: `generated` and `real`, uint8[n, H, W], and `labels`, JSON for each."""
KINDS = ("real", "generated")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is behind a film of the page; the page does not know.

    Attributes:
        id: by which the page names it.
        kind: `real` or `generated`, what readers are to tell.
        conditions: that its caption names.
        row: of the finalist's films.
    """

    id: str
    kind: str
    conditions: tuple[str, ...]
    row: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Generated films and real ones of the same captions.

    Attributes:
        generated: uint8[n, H, W], grey.
        real: uint8[n, H, W], row i of the same caption as the generated film i.
        labels: the conditions that each caption names.
    """

    generated: NDArray[np.uint8]
    real: NDArray[np.uint8]
    labels: tuple[tuple[str, ...], ...]

    def film(self, shown: Shown) -> NDArray[np.uint8]:
        """The film that is shown, uint8[H, W]."""
        films: NDArray[np.uint8] = (self.real if shown.kind == "real" else self.generated)[shown.row]
        return films


def read_films(run: RunFolder, trial_id: str) -> Pairs:
    """The films that the final evaluation of a trial left.

    Raises:
        FileNotFoundError: it left none.
    """
    file = run.folder / EVALUATION / trial_id / FILMS
    if not file.is_file():
        raise FileNotFoundError(
            f"`--pick` must be a trial with a final evaluation, but got {trial_id!r}, of which there is no {FILMS}. "
            f"Evaluate it: python -m sweep.evaluate --run {run.folder} --pick trial:{trial_id}"
        )
    with np.load(file) as archive:
        labels = tuple(tuple(json.loads(str(text))) for text in archive["labels"])
        return Pairs(archive["generated"], archive["real"], labels)


def chosen_films(labels: Sequence[tuple[str, ...]], num: int, seed: int) -> list[Shown]:
    """Films for a study, as many real as generated ones, of as many captions of each condition as there are.

    No caption is shown twice, so that no film gives away its partner.

    Args:
        labels: conditions of each caption.
        num: of films, even.
        seed: of the choice, the order and the names.

    Raises:
        ValueError: the number is odd or below 2, or there are too few captions.
    """
    expect(num >= 2 and num % 2 == 0, "`--num` must be an even number of at least 2", num, "Half of them are real.")
    remedy = "Evaluate with more --images-per-condition."
    expect(num <= len(labels), f"`--num` must be at most the {len(labels)} captions", num, remedy)
    rng = np.random.default_rng(seed)
    rows = _spread(labels, rng)[:num]
    kinds = rng.permutation(np.repeat(KINDS, num // 2))
    names = rng.choice(16**6, size=num, replace=False)
    return [
        Shown(id=f"{name:06x}", kind=str(kind), conditions=labels[row], row=int(row))
        for name, kind, row in zip(names, kinds, rng.permutation(rows), strict=True)
    ]


def _spread(labels: Sequence[tuple[str, ...]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows in turns: one of each combination of conditions, then a second of each, and so on."""
    turns: dict[tuple[str, ...], int] = {}
    order: list[tuple[int, int, int]] = []
    for row in rng.permutation(len(labels)):
        turns[labels[row]] = turns.get(labels[row], 0) + 1
        order.append((turns[labels[row]], len(order), int(row)))
    return np.array([row for _, _, row in sorted(order)], np.int64)


def as_records(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """The films as the key file has them."""
    return [asdict(film) for film in shown]
