"""Where on a film each drawn finding lies: the truth against which its visibility is measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.phantom.canvas import Field
from trainables.datasets.phantom.film import AIR_CONTRAST, SUPERSAMPLING, canvas_of, healthy_lungs
from trainables.datasets.phantom.findings import FINDINGS, Lungs, Scene
from trainables.datasets.phantom.patients import NO_FINDING, Exam
from trainables.datasets.phantom.shape import chest_map, shape_of

Region = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""


def finding_masks(exam: Exam, resolution_px: int) -> dict[str, Region]:
    """The region of each finding of a film, as `draw_film` draws it in that size.

    A finding of the lungs lies where it alone changes the shadow by at least half of its largest change; an enlarged
    heart is the heart above the diaphragm.

    Args:
        exam: who and what.
        resolution_px: side of the film.

    Returns:
        Condition to bool[resolution_px, resolution_px]; nothing for `No Finding`.
    """
    canvas, shape = canvas_of(exam, resolution_px * SUPERSAMPLING), shape_of(exam)
    scene = Scene(canvas=canvas, exam=exam, shape=shape, chest=chest_map(canvas, shape))
    return {condition: _mask(scene, condition) for condition in exam.findings if condition != NO_FINDING}


def bounding_box(mask: Region) -> Box:
    """The smallest box around a region.

    Raises:
        ValueError: the region is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("`mask` must mark at least one pixel, but got none. Draw the film in a larger size.")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _mask(scene: Scene, condition: str) -> Region:
    if condition not in FINDINGS:
        return _reduced(scene.chest.heart * scene.chest.thorax)
    healthy = healthy_lungs(scene)
    change = np.abs(_shadow(FINDINGS[condition](scene, healthy)) - _shadow(healthy))
    return _reduced((change >= change.max() / 2).astype(np.float32))


def _shadow(lungs: Lungs) -> Field:
    return lungs.markings + lungs.density - np.float32(AIR_CONTRAST) * lungs.air


def _reduced(field: Field) -> Region:
    """Pixels of the film of which at least half is covered."""
    side = len(field) // SUPERSAMPLING
    covered: Region = field.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean(axis=(1, 3)) >= 0.5
    return covered
