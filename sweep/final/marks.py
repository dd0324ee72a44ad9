"""Where findings lie on test films: the phantom knows, and of other films a list of boxes may tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.studies.reconstruction import Mark
from sweep.config import DataConfig
from trainables.datasets.nih_boxes import read_boxes
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedSplit

MIN_BOX_PX = 2.0
"""A narrower box has no pixel that resizing did not blur with its surroundings."""


@dataclass(frozen=True, kw_only=True)
class PlacedBoxes:
    """The boxes of a list that lie on test films.

    Attributes:
        digest: hash of the list.
        marks: of rows of the test split.
        counts: boxes `in_list`, those `on_test_films`, and of these the ones left out as `too_small`.
    """

    digest: str
    marks: tuple[Mark, ...]
    counts: dict[str, int]

    @property
    def summary(self) -> str:
        """The counts in words."""
        counts = self.counts
        return f"{counts['on_test_films']} of {counts['in_list']} boxes lie on test films; {counts['too_small']} are too small."


def place_boxes(file: Path, films: PreparedSplit) -> PlacedBoxes:
    """Find the test films that a list of boxes tells of, by their image ids, and scale the boxes as the films were.

    Args:
        file: as `read_boxes` takes it.
        films: the test split.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such list, none of its films is in the split, or all boxes on them are too small.
    """
    boxes, side_px = read_boxes(file), films.resolution_px
    rows = {image_id: row for row, image_id in enumerate(films.image_ids)}
    placed = [(rows[box.image_id], box.condition, box.on(side_px)) for box in boxes if box.image_id in rows]
    if not placed:
        raise ValueError(
            f"`--boxes` must have a film of the test split, but got {boxes[0].image_id!r} and others, none among its "
            f"{len(films)} films such as {films.image_ids[0]!r}. Give the list of the films that were prepared."
        )
    marks = tuple(Mark.of_box(*entry, side_px) for entry in placed if min(entry[2][2:]) >= MIN_BOX_PX)
    if not marks:
        raise ValueError(
            f"`--boxes` must have a box of at least {MIN_BOX_PX:g} px on a test film of {side_px} px, but got "
            f"{len(placed)} that are smaller. Prepare the films in a larger size."
        )
    counts = {"in_list": len(boxes), "on_test_films": len(placed), "too_small": len(placed) - len(marks)}
    return PlacedBoxes(digest=hashlib.sha256(file.read_bytes()).hexdigest(), marks=marks, counts=counts)


def phantom_marks(data: DataConfig) -> Iterator[Mark]:
    """Where the phantom drew each finding of each test film, as rows of the test split."""
    source = PhantomSource(num_patients=data.num_patients, resolution_px=data.resolution_px, seed=data.seed)
    for row, masks in enumerate(source.finding_masks("test")):
        for condition, mask in masks.items():
            if mask.any():
                yield Mark(film=row, condition=condition, mask=mask)
