"""Soft tissue and bones around the lungs."""

from __future__ import annotations

import numpy as np

from trainables.datasets.phantom.canvas import Canvas, Field, Point, bell, curve, inside
from trainables.datasets.phantom.patients import Exam
from trainables.datasets.phantom.shape import ChestMap, Shape


def body_thickness(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Soft tissue in the beam without any organ, about 1 in the middle of the trunk and 0 outside the body.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    trunk = _trunk(canvas, shape)
    shoulders = _shoulders(canvas, shape)
    neck = _neck(canvas, 0.20 + 0.08 * exam.patient.build + 0.03 * (exam.patient.sex == "M"))
    arms = _arms(canvas, exam, shape)
    thicker_below = curve(canvas.y, [(-1.0, 0.80), (-0.4, 0.92), (0.2, 1.0), (1.0, 1.06)])
    thickness: Field = np.maximum(np.maximum(trunk, shoulders), np.maximum(neck, arms)) * thicker_below
    return thickness


def _trunk(canvas: Canvas, shape: Shape) -> Field:
    half = np.float32(shape.half_width + shape.wall) + curve(
        canvas.y, [(-0.7, 0.16), (-0.35, 0.10), (-0.1, 0.03), (0.2, 0.0), (0.6, 0.0), (1.2, 0.03)]
    )
    relative = np.clip(canvas.lateral / half, 0, 1)
    profile: Field = np.clip(1 - relative**4, 0, 1) ** np.float32(0.45)
    return profile * inside(_shoulder_line(shape, canvas) - canvas.y, 0.08)


def _shoulder_line(shape: Shape, canvas: Canvas) -> Field:
    """Height of the skin above each pixel's x."""
    knots = [
        (0.0, -1.08),
        (0.2, -0.98),
        (0.3, -0.91),
        (0.45, -0.85),
        (0.7, -0.80),
        (0.88, -0.74),
        (1.02, -0.64),
        (1.15, -0.45),
        (1.3, -0.1),
    ]
    return curve(canvas.lateral, [(x, y + shape.shoulder_slope * x**2) for x, y in knots])


def _shoulders(canvas: Canvas, shape: Shape) -> Field:
    """Between the neck and the armpits, thinner towards the outside."""
    above = inside(_shoulder_line(shape, canvas) - canvas.y, 0.07)
    armpit = curve(canvas.lateral, [(0.6, 0.25), (0.72, 0.1), (0.85, -0.12), (1.0, -0.22), (1.2, -0.25)])
    thickness = curve(canvas.lateral, [(0.0, 0.9), (0.4, 0.86), (0.7, 0.78), (0.9, 0.68), (1.1, 0.58), (1.3, 0.5)])
    return above * inside(canvas.y - armpit, 0.18) * thickness


def _neck(canvas: Canvas, half: float) -> Field:
    widening = np.clip(canvas.y + np.float32(0.95), 0, 1) * np.float32(1.2)
    relative = canvas.lateral / (np.float32(half) + widening)
    round_: Field = np.sqrt(np.clip(1 - relative**2, 0, 1))
    return np.float32(0.85) * round_ * inside(canvas.y + 0.62, 0.34)


def _arms(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Upper arms hang beside the trunk on portable films and are turned away on the others."""
    field = canvas.blank()
    rng = exam.rng("arms")
    spread = 0.06 + 0.14 * rng.uniform() + (0.0 if exam.view == "AP" else 0.24)
    outside = shape.half_width + shape.wall + 0.14
    radius = 0.13 + 0.05 * exam.patient.build
    for side in (-1, 1):
        points = [
            (side * (outside + 0.05), -0.52),
            (side * (outside + spread), 0.25),
            (side * (outside + 2 * spread), 1.1),
        ]
        canvas.stroke(field, points, [radius, radius * 0.95, radius * 0.8], 0.12)
    return field * np.float32(0.55)


def ribs(canvas: Canvas, exam: Exam, shape: Shape, chest: ChestMap) -> Field:
    """Both arcs of all ribs, with bright rims; front arcs are fainter and end in cartilage.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
        chest: where the organs are.
    """
    rng = exam.patient.rng("ribs")
    wobble = canvas.noise(rng, 3) * np.float32(0.006)
    a = np.clip(chest.relative, 0, 1.2)
    back = canvas.y + wobble - (0.30 * a**2.4 - 0.14 * a) - np.float32(shape.rib_start)
    front = (
        canvas.y + wobble - 0.36 * np.clip(1 - a, 0, 1) ** 1.3 - np.float32(shape.rib_start + 0.35 * shape.rib_spacing)
    )
    fade_back = inside(0.10 - a, 0.05)
    fade_front = inside(0.50 - a, 0.14)
    wall = inside(canvas.lateral - chest.cage - np.float32(0.02), 0.02)
    height = inside(canvas.y - chest.dome - np.float32(0.08), 0.2)
    spacing = shape.rib_spacing
    arcs = (
        _bands(back, spacing, 0.026) * fade_back + np.float32(0.55) * _bands(front, spacing * 1.05, 0.032) * fade_front
    )
    tangential = bell((chest.relative - np.float32(1.0)) / np.float32(0.05)) * np.float32(0.5)
    tangential *= inside(0.22 - canvas.lateral, 0.14)
    # Scatter hides bones where the beam meets no air.
    seen = np.float32(0.4) + np.float32(0.6) * np.clip(chest.air * 2, 0, 1)
    bones: Field = (arcs * seen + tangential) * wall * height
    return bones


def _bands(position: Field, spacing: float, half: float) -> Field:
    """Stripes of a thickness that grows slightly downwards, brighter at both edges."""
    away = np.abs((position / np.float32(spacing)) % 1 - np.float32(0.5)) * np.float32(spacing)
    body = inside(away - np.float32(half), 0.012)
    rim = bell((away - np.float32(half * 0.8)) / np.float32(0.008))
    return np.float32(0.7) * body + np.float32(0.3) * rim


def spine(canvas: Canvas, exam: Exam) -> Field:
    """Vertebral bodies with darker discs and bright spinous processes."""
    rng = exam.patient.rng("spine")
    bend = np.float32(rng.normal(0, 0.012)) * np.sin(canvas.y * np.float32(2.2)) * np.float32(1 + exam.patient.age / 60)
    x = np.abs(canvas.x - bend)
    height = (canvas.y / np.float32(0.125) + np.float32(rng.uniform())) % 1
    column = inside(x - 0.075, 0.02)
    plates = inside(np.abs(height - 0.5) - 0.38, 0.1)
    process = bell(x / np.float32(0.016)) * bell((height - np.float32(0.7)) / np.float32(0.16))
    pedicles = bell((x - np.float32(0.05)) / np.float32(0.012)) * bell((height - np.float32(0.35)) / np.float32(0.1))
    return column * (np.float32(0.65) + np.float32(0.35) * plates) + np.float32(0.3) * (process + pedicles)


def shoulder_girdle(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Clavicles, shoulder blades and heads of the humerus.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    field = canvas.blank()
    body, film = exam.patient.rng("girdle"), exam.rng("girdle")
    lift = body.normal(0, 0.02) + film.normal(0, 0.02) - 0.05 * (exam.view == "AP") + 0.5 * shape.shoulder_slope
    for side in (-1, 1):
        tilt = lift + film.normal(0, 0.012)
        _clavicle(canvas, field, side, tilt)
        _blade(canvas, field, side, (shape.half_width - 0.10 * (exam.view == "AP") + body.normal(0, 0.015), tilt))
    return field


def _clavicle(canvas: Canvas, field: Field, side: int, lift: float) -> None:
    line = [(0.07, -0.56), (0.15, -0.585), (0.26, -0.645), (0.38, -0.705), (0.52, -0.735), (0.64, -0.73), (0.76, -0.69)]
    points: list[Point] = [(side * x, y + lift * (0.4 + x)) for x, y in line]
    outer, inner = canvas.blank(), canvas.blank()
    canvas.stroke(outer, points, [0.036, 0.030, 0.024, 0.022, 0.022, 0.024, 0.026])
    canvas.stroke(inner, points, [0.018, 0.014, 0.011, 0.010, 0.010, 0.012, 0.013])
    np.maximum(field, outer - np.float32(0.3) * inner, out=field)


def _blade(canvas: Canvas, field: Field, side: int, position: tuple[float, float]) -> None:
    edge, lift = position
    blade = canvas.blank()
    inner = [
        (edge + 0.04, -0.64),
        (edge + 0.01, -0.5),
        (edge + 0.01, -0.33),
        (edge + 0.05, -0.14),
        (edge + 0.11, -0.04),
    ]
    outer = [(edge + 0.11, -0.04), (edge + 0.15, -0.12), (edge + 0.18, -0.3), (edge + 0.27, -0.52)]
    for line, radius in ((inner, 0.010), (outer, 0.014)):
        points: list[Point] = [(side * x, y + lift) for x, y in line]
        canvas.stroke(blade, points, [radius] * len(points), 0.035)
    spine_line: list[Point] = [(side * (edge + 0.03), -0.56 + lift), (side * (edge + 0.28), -0.70 + lift)]
    canvas.stroke(blade, spine_line, [0.014, 0.024], 0.035)
    head = canvas.disc((side * (edge + 0.36), -0.57 + lift), (0.105, 0.115), 0.035)
    shaft = canvas.blank()
    shaft_line: list[Point] = [
        (side * (edge + 0.37), -0.5 + lift),
        (side * (edge + 0.46), 0.2),
        (side * (edge + 0.5), 0.8),
    ]
    canvas.stroke(shaft, shaft_line, [0.065, 0.05, 0.05], 0.025)
    plate = canvas.disc((side * (edge + 0.13), -0.36 + lift), (0.10, 0.24), 0.08)
    np.maximum(
        field,
        np.maximum(
            np.float32(0.75) * np.maximum(head, shaft), np.float32(0.45) * np.maximum(np.float32(0.6) * plate, blade)
        ),
        out=field,
    )


def breasts(canvas: Canvas, exam: Exam, shape: Shape) -> Field:
    """Shadows with a sharper lower rim; small muscles instead for a man.

    Args:
        canvas: where the pixels lie in the patient.
        exam: whose film it is.
        shape: measures of the chest.
    """
    rng = exam.patient.rng("breasts")
    size = (0.20 + 0.14 * exam.patient.build) * (1.0 if exam.patient.sex == "F" else 0.75) * rng.uniform(0.85, 1.15)
    weight = (0.75 + 0.5 * exam.patient.build) if exam.patient.sex == "F" else 0.25
    field = canvas.blank()
    low = 0.16 + 0.002 * (exam.patient.age - 50) + rng.normal(0, 0.04)
    for side in (-1, 1):
        centre = (side * (0.62 * shape.half_width + 0.3 * size + 0.01 * rng.normal()), low + 0.01 * rng.normal())
        distance = canvas.ellipse(centre, (size * 1.15, size))
        full = np.sqrt(np.clip(1 - distance * distance, 0, 1))
        rim = inside(distance - 1, 0.06) * inside(np.float32(centre[1] - 0.1) - canvas.y, 0.25)
        field += np.float32(weight) * (np.float32(0.5) * full + np.float32(0.5) * rim)
    return field
