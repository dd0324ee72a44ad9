"""The measures of one chest on one film, and the maps of its lungs, heart and diaphragm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.datasets.phantom.canvas import Canvas, Field, Point, curve, inside
from trainables.datasets.phantom.patients import Exam

NORMAL_RATIO = (0.39, 0.47)
ENLARGED_RATIO = (0.58, 0.70)
AP_MAGNIFICATION = 0.025
"""Cardiothoracic ratios; a heart far from the film looks larger."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Measures in patient coordinates."""

    half_width: float
    """Of the inner rib cage, at its widest."""
    apex: float
    """Height of the top of the lungs; heights grow downwards."""
    widest: float
    """Height at which the rib cage is widest."""
    dome: Point
    """Tops of the right and the left diaphragm."""
    dome_bulge: float
    """How far the middle of a diaphragm rises above its sides."""
    heart_ratio: float
    """Cardiothoracic ratio: width of the heart over that of the chest."""
    heart_lean_rad: float
    """Angle by which the heart's long axis leans."""
    mediastinum: float
    """Half its width, relative to the usual."""
    wall: float
    """Thickness of the soft tissue beside the ribs."""
    mediastinal_shift: float
    """How far the heart lies off its usual place, to the right in the picture; a large pneumothorax pushes it."""
    shoulder_slope: float
    """How much the shoulders fall towards the outside, beyond the flattest."""
    knob: float
    """Radius of the aortic knob."""
    rib_spacing: float
    """Distance from one rib to the next."""
    rib_start: float
    """Height of the first rib, within one spacing."""


def shape_of(exam: Exam) -> Shape:
    """Draw the measures: from the patient's own random numbers, then a little from the film's."""
    patient, body, film = exam.patient, exam.patient.rng("shape"), exam.rng("shape")
    portable = exam.view == "AP"
    breath = body.normal(0, 0.06) + film.normal(0, 0.025) - 0.11 * portable
    half_width = 0.61 + 0.03 * (patient.sex == "M") + body.normal(0, 0.035) + 0.012 * film.normal()
    low = NORMAL_RATIO if not exam.has("Cardiomegaly") else ENLARGED_RATIO
    position = exam.severity("Cardiomegaly") if exam.has("Cardiomegaly") else body.uniform()
    right = 0.40 + breath
    return Shape(
        half_width=half_width,
        apex=-0.77 + body.normal(0, 0.035),
        widest=0.30 + body.normal(0, 0.04),
        dome=(right, right + body.normal(0.045, 0.02)),
        dome_bulge=float(np.clip(body.normal(0.17, 0.035), 0.08, 0.26)),
        heart_ratio=low[0] + (low[1] - low[0]) * position + AP_MAGNIFICATION * portable,
        heart_lean_rad=float(np.clip(body.normal(0.62, 0.12) - 0.2 * patient.build, 0.25, 0.9)),
        mediastinum=1 + body.normal(0, 0.1) + 0.12 * portable + 0.12 * patient.build,
        wall=0.10 + 0.26 * patient.build + 0.03 * body.uniform(),
        mediastinal_shift=body.normal(0, 0.01) + _push(exam),
        shoulder_slope=abs(body.normal(0.06, 0.07)) + 0.03 * film.uniform(),
        knob=0.065 + 0.0004 * (patient.age - 50) + body.normal(0, 0.006),
        rib_spacing=0.128 + body.normal(0, 0.006),
        rib_start=body.uniform(0, 0.128),
    )


def _push(exam: Exam) -> float:
    """A large pneumothorax pushes the heart to the other side."""
    if not exam.has("Pneumothorax"):
        return 0.0
    return -exam.patient.side * 0.07 * max(0.0, exam.severity("Pneumothorax") - 0.5)


@dataclass(frozen=True, kw_only=True)
class ChestMap:
    """Where the organs are: masks in [0, 1] and boundaries in patient coordinates, each float32[side, side]."""

    cage: Field
    """Half the inner width of the rib cage at each pixel's height."""
    relative: Field
    """Distance from the middle, 1 at the rib cage."""
    dome: Field
    """Height of the diaphragm at each pixel's x."""
    thorax: Field
    """Mask: inside the rib cage and above the diaphragm."""
    mediastinum: Field
    """Mask: the shadow between the lungs, without the heart."""
    heart: Field
    """Mask: the heart."""
    air: Field
    """Thickness of aerated lung in the beam."""


def chest_map(canvas: Canvas, shape: Shape) -> ChestMap:
    """Lay out the organs of a healthy chest; a large heart included."""
    cage = cage_at(canvas.y, shape)
    relative = canvas.lateral / cage
    dome = _dome(canvas, shape)
    thorax = inside(canvas.lateral - cage, 0.025) * inside(canvas.y - dome, 0.03)
    mediastinum = _mediastinum(canvas, shape)
    heart = _heart(canvas, shape)
    depth = np.sqrt(np.clip(1 - relative**3, 0, 1))
    return ChestMap(
        cage=cage,
        relative=relative,
        dome=dome,
        thorax=thorax,
        mediastinum=mediastinum,
        heart=heart,
        air=thorax * depth * (1 - 0.93 * mediastinum) * (1 - 0.82 * heart),
    )


def cage_at(height: Field, shape: Shape) -> Field:
    """Half the inner width of the rib cage at these heights."""
    heights = np.linspace(-1.6, 1.6, 200)
    upper = np.clip((shape.widest - heights) / (shape.widest - shape.apex), 0, 1)
    widths = shape.half_width * (1 - upper**3.2) ** 0.50
    widths *= 1 - 0.10 * np.clip(heights - shape.widest, 0, None) ** 2
    return np.interp(height, heights, np.maximum(widths, 0.02)).astype(np.float32)


def _dome(canvas: Canvas, shape: Shape) -> Field:
    """Each half of the diaphragm: highest near its middle, falling to the costophrenic angle outside."""
    tops = curve(canvas.x, [(-0.2, shape.dome[0]), (0.2, shape.dome[1])])
    away = canvas.lateral / np.float32(shape.half_width) - np.float32(0.42)
    falls = np.where(away > 0, np.minimum(away / np.float32(0.58), 1), away * np.float32(0.9))
    return tops + np.float32(shape.dome_bulge) * np.abs(falls) ** np.float32(2.2)


def _mediastinum(canvas: Canvas, shape: Shape) -> Field:
    knots = [
        (-1.1, 0.20),
        (-0.78, 0.20),
        (-0.66, 0.145),
        (-0.5, 0.115),
        (-0.25, 0.10),
        (0.0, 0.105),
        (0.3, 0.13),
        (1.0, 0.13),
    ]
    width = curve(canvas.y, [(height, half * shape.mediastinum) for height, half in knots])
    return inside(np.abs(canvas.x - np.float32(shape.mediastinal_shift)) - width, 0.04)


def heart_centre(shape: Shape) -> Point:
    """The middle of the left ventricle's ellipse."""
    width = 2 * shape.half_width * shape.heart_ratio
    return 0.17 * width + shape.mediastinal_shift, shape.dome[1] + 0.03 - 0.33 * width


def _heart(canvas: Canvas, shape: Shape) -> Field:
    width = 2 * shape.half_width * shape.heart_ratio
    x, y = heart_centre(shape)
    lean = shape.heart_lean_rad
    long = 0.5 * width / np.sqrt(np.cos(lean) ** 2 + (0.72 * np.sin(lean)) ** 2)
    ventricle = canvas.disc((x, y), (float(long), float(0.72 * long)), 0.025, lean)
    atrium = canvas.disc((x - 0.28 * width, y - 0.01), (0.23 * width, 0.30 * width), 0.025)
    outflow = canvas.blank()
    top = (0.03 + shape.mediastinal_shift, min(-0.14, y - 0.4 * width))
    canvas.stroke(outflow, [top, (x - 0.02 * width, y)], [0.085, 0.32 * width], 0.03)
    return np.maximum(np.maximum(ventricle, atrium), outflow)
