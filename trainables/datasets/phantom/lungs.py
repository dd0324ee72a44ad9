"""What fills the chest: vessels, airways, aorta, and what lies under the diaphragm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainables.datasets.phantom.canvas import Canvas, Field, Line, Point, bell, inside
from trainables.datasets.phantom.patients import Exam
from trainables.datasets.phantom.shape import ChestMap, Shape

HILUM = (0.155, -0.10)
"""Distance from the middle, and height."""


def vessels(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """The trees of vessels that spread from both hila, the same on each film of a patient.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    field = canvas.blank()
    congestion = 1.0 + 0.35 * exam.has("Edema")
    lines: list[Line] = []
    for side in (-1, 1):
        rng = exam.patient.rng(f"vessels{side}")
        root = (side * HILUM[0] + shape.mediastinal_shift, HILUM[1] + 0.02 * side)
        for angle in np.linspace(-1.25, 1.35, 8) + rng.normal(0, 0.15, 8):
            thick = (0.013 if angle > 0 else 0.010) * rng.uniform(0.8, 1.2) * congestion
            lines += _branches(rng, (root, side, float(angle), thick, 0.26))
        hilum = canvas.disc((root[0] + 0.01 * side, root[1] + 0.03), (0.05, 0.10), 0.05, -0.2 * side)
        np.maximum(field, np.float32(0.8) * hilum, out=field)
    canvas.strokes(field, lines, 0.012)
    return field


def _branches(rng: np.random.Generator, twig: tuple[Point, int, float, float, float]) -> Iterator[Line]:
    """One branch, then two thinner ones from its end, until they are too thin to be seen."""
    start, side, angle, thick, length = twig
    if thick < 0.0035:
        return
    bent = angle + rng.normal(0, 0.28)
    middle = _walk(start, side, angle, length / 2)
    end = _walk(middle, side, bent, length / 2)
    yield [start, middle, end], [thick, thick * 0.8, thick * 0.6]
    for turn in (-0.32, 0.32):
        yield from _branches(rng, (end, side, bent + turn * rng.uniform(0.5, 1.4), thick * 0.58, length * 0.75))


def _walk(start: Point, side: int, angle: float, length: float) -> Point:
    return start[0] + side * length * float(np.cos(angle)), start[1] + length * float(np.sin(angle))


def great_vessels(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Aortic knob, descending aorta, trunk of the pulmonary artery and superior vena cava.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    shift, radius = shape.mediastinal_shift, shape.knob
    age = exam.patient.age / 100
    knob = canvas.disc((0.075 + shift, -0.36), (radius, radius * 1.1), 0.025)
    trunk = canvas.disc((0.085 + shift, -0.17), (0.065, 0.09), 0.04)
    cava = canvas.disc((-0.08 + shift, -0.35), (0.045, 0.22), 0.04)
    descending = canvas.blank()
    line = [(0.085 + shift, -0.36), (0.08 + shift, 0.0), (0.045 + shift, 0.5)]
    canvas.stroke(descending, line, [radius * 0.8, radius * 0.7, radius * 0.65], 0.03)
    right_and_down = np.maximum(np.float32(0.6) * cava, np.float32(age) * descending)
    field: Field = np.maximum(np.maximum(knob, np.float32(0.8) * trunk), right_and_down)
    return field


def airways(canvas: Canvas, shape: Shape) -> Field:
    """Windpipe and main bronchi, full of air."""
    field = canvas.blank()
    shift = shape.mediastinal_shift
    carina = (0.005 + shift, -0.27)
    canvas.stroke(field, [(0.0, -1.2), (-0.008 + 0.7 * shift, -0.6), carina], [0.034, 0.034, 0.030], 0.025)
    canvas.stroke(field, [carina, (-0.12 + shift, -0.13)], [0.024, 0.018], 0.025)
    canvas.stroke(field, [carina, (0.13 + shift, -0.15)], [0.022, 0.016], 0.025)
    return field


def abdomen(canvas: Canvas, chest: ChestMap) -> Field:
    """Everything below the diaphragm; the liver makes the patient's right side denser."""
    within = inside(canvas.lateral - chest.cage, 0.04)
    sharp, soft = inside(chest.dome - canvas.y, 0.03), inside(chest.dome - canvas.y, 0.45)
    below = (soft + (sharp - soft) * within) * inside(canvas.lateral - chest.cage * np.float32(1.15), 0.22)
    liver = np.float32(0.12) * inside(canvas.x - 0.05, 0.3)
    return below * (np.float32(0.88) + liver)


def gas(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Air in the stomach below the left dome, and some in the bowel.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    rng = exam.rng("gas")
    field = canvas.blank()
    if rng.random() < 0.55:
        size = rng.uniform(0.05, 0.12)
        centre = (rng.uniform(0.25, 0.42), shape.dome[1] + 0.05 + 0.7 * size)
        field += canvas.disc(centre, (size * rng.uniform(1.0, 1.7), size * 0.7), 0.03) * np.float32(
            rng.uniform(0.4, 1.0)
        )
    if rng.random() < 0.4:
        loops = canvas.noise(rng, 9) - np.float32(0.9)
        region = bell((canvas.y - np.float32(0.95)) / np.float32(0.2)) * bell(
            (canvas.x - np.float32(0.25)) / np.float32(0.35)
        )
        field += np.clip(loops, 0, 0.8) * region
    return field


def interstitium(canvas: Canvas, exam: Exam) -> Field:
    """Fine texture of lung tissue, about standard normal; coarser with age."""
    rng = exam.patient.rng("texture")
    return canvas.noise(rng, 14, 3) * np.float32(0.7 + 0.5 * exam.patient.age / 100)
