"""From the patient to the finished film: attenuation, scatter, exposure, grain, markers and borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.phantom import body, lungs
from trainables.datasets.phantom.canvas import Canvas, Field, Point, inside
from trainables.datasets.phantom.findings import Lungs, Scene, add_findings
from trainables.datasets.phantom.patients import Exam
from trainables.datasets.phantom.shape import chest_map, shape_of

SUPERSAMPLING = 2
AIR_CONTRAST = 0.46
"""How much less of the beam a full thickness of aerated lung stops."""


@dataclass(frozen=True, kw_only=True)
class Technique:
    """How a film was taken and printed."""

    rotation_rad: float
    """How far the patient leans, anticlockwise in the picture, in [-0.14, 0.14]."""
    zoom: float
    """Patient units that a unit of the film shows, in [0.78, 1.15]; above 1 shows more of the body."""
    shift: tuple[float, float]
    """Patient coordinates of the middle of the film."""
    darkest: float
    """Attenuation printed black."""
    brightest: float
    """Attenuation printed white."""
    gamma: float
    """Exponent of the printed grey levels: below 1 the film is brighter."""
    white: float
    """Grey level of what is printed white."""
    scatter: float
    """Share of the shadow that scattered radiation blurs, in [0.02, 0.4]."""
    grain: float
    """Strength of the film's noise, in grey levels that go from 0 to 1."""


def draw_film(exam: Exam, resolution_px: int) -> NDArray[np.uint8]:
    """The finished film of an exam.

    Args:
        exam: who and what.
        resolution_px: side of the image.

    Returns:
        Grey levels, uint8[resolution_px, resolution_px]; air is dark. The anatomy is the same at each resolution.
    """
    technique = technique_of(exam)
    canvas = canvas_of(exam, resolution_px * SUPERSAMPLING)
    shadow = attenuation(canvas, exam)
    shadow += np.float32(technique.scatter) * (canvas.blur(shadow, 0.30) - shadow)
    shadow += np.float32(0.11) * _wires(canvas, exam)
    print_ = expose(shadow, technique)
    print_ = _borders(canvas, exam, _marker(canvas, exam, print_))
    return _develop(print_, exam, technique)


def canvas_of(exam: Exam, side_px: int) -> Canvas:
    """Where the pixels of the exam's film lie in the patient."""
    technique = technique_of(exam)
    return Canvas(side_px=side_px, rotation_rad=technique.rotation_rad, zoom=technique.zoom, shift=technique.shift)


def technique_of(exam: Exam) -> Technique:
    """Draw the technique: the patient's usual one, and what changes from film to film."""
    body, film = exam.patient.rng("technique"), exam.rng("technique")
    portable = exam.view == "AP"
    contrast = 1.02 + body.normal(0, 0.07) + film.normal(0, 0.04) + 0.14 * portable + 0.1 * exam.patient.build
    darkest = 0.07 + body.normal(0, 0.05) + film.normal(0, 0.03) - 0.10 * portable
    return Technique(
        rotation_rad=float(np.clip(body.normal(0, 0.02) + film.normal(0, 0.02 + 0.02 * portable), -0.14, 0.14)),
        zoom=float(np.clip(body.normal(0.95, 0.08) + film.normal(0, 0.025), 0.78, 1.15)),
        shift=(film.normal(0, 0.05), body.normal(-0.03, 0.05) + film.normal(0, 0.045)),
        darkest=darkest,
        brightest=darkest + max(contrast, 0.75),
        gamma=float(np.clip(body.normal(0.92, 0.12) + film.normal(0, 0.05), 0.6, 1.4)),
        white=float(np.clip(body.normal(0.93, 0.04), 0.8, 1.0)),
        scatter=float(np.clip(0.08 + 0.12 * portable + 0.22 * exam.patient.build**2 + film.normal(0, 0.03), 0.02, 0.4)),
        grain=0.004 + 0.007 * body.uniform() + 0.005 * portable,
    )


def attenuation(canvas: Canvas, exam: Exam) -> Field:
    """How much of the beam the patient stops: about 0 beside the body, 1 at the spine below the diaphragm."""
    shape = shape_of(exam)
    chest = chest_map(canvas, shape)
    scene = Scene(canvas=canvas, exam=exam, shape=shape, chest=chest)
    content = add_findings(scene, healthy_lungs(scene))
    thickness = body.body_thickness(canvas, exam, shape)
    tissue = thickness * np.float32(0.66 + 0.14 * exam.patient.build)
    soft = np.float32(0.13) * np.maximum(chest.heart * chest.thorax, np.float32(0.85) * chest.mediastinum)
    soft += np.float32(0.10) * lungs.great_vessels(canvas, exam, shape) + np.float32(0.22) * lungs.abdomen(
        canvas, chest
    )
    soft += np.float32(0.07) * body.breasts(canvas, exam, shape) - np.float32(0.16) * lungs.gas(canvas, exam, shape)
    soft -= np.float32(0.13) * lungs.airways(canvas, shape)
    bone = np.float32(0.088) * body.ribs(canvas, exam, shape, chest) + np.float32(0.085) * body.spine(canvas, exam)
    bone += np.float32(0.15) * body.shoulder_girdle(canvas, exam, shape)
    present = inside(0.12 - thickness, 0.12)
    cloth = np.float32(0.02) * canvas.noise(exam.patient.rng("cloth"), 5, 3)
    lying_in = (soft + bone + content.markings + content.density + cloth) * present
    total: Field = tissue - np.float32(AIR_CONTRAST) * content.air + lying_in
    return total


def healthy_lungs(scene: Scene) -> Lungs:
    """The lungs before any finding is drawn into them."""
    canvas, exam = scene.canvas, scene.exam
    texture = np.float32(0.016) * lungs.interstitium(canvas, exam)
    vessels = np.float32(0.075) * lungs.vessels(canvas, exam, scene.shape)
    visible = scene.chest.thorax * (1 - np.float32(0.7) * scene.chest.heart)
    # Blood and gas are heaviest low in an upright lung, so that its base is brighter than its apex.
    gradient = np.float32(1.0) - np.float32(0.28) * np.clip((canvas.y + np.float32(0.45)), 0, 1)
    return Lungs(air=scene.chest.air * gradient, markings=(texture + vessels) * visible, density=canvas.blank())


def expose(shadow: Field, technique: Technique) -> Field:
    """Grey levels in [0, 1] by a film's curve: linear in the middle, flat at both ends."""
    linear = (shadow - np.float32(technique.darkest)) / np.float32(technique.brightest - technique.darkest)
    bounded = 0.5 + 0.5 * np.tanh(np.float32(2.3) * (linear - np.float32(0.5))) / np.float32(np.tanh(1.15))
    printed: Field = np.float32(technique.white) * np.clip(bounded, 0, 1) ** np.float32(technique.gamma)
    return printed


def _marker(canvas: Canvas, exam: Exam, film: Field) -> Field:
    """The side's letter in lead, a few bright strokes, mostly in the upper corner on the patient's left."""
    rng = exam.rng("marker")
    if rng.random() < 0.25:
        return film
    upright = Canvas(side_px=canvas.side_px)
    x, y, size = rng.uniform(0.72, 0.92), rng.uniform(-0.93, -0.6), rng.uniform(0.025, 0.045)
    letter = canvas.blank()
    upright.stroke(letter, [(x, y - size), (x, y + size), (x + size, y + size)], [0.009] * 3, 0.012)
    marked: Field = np.maximum(film, np.float32(rng.uniform(0.75, 1.0)) * letter)
    return marked


def _wires(canvas: Canvas, exam: Exam) -> Field:
    """Electrodes with their wires, on some portable films."""
    rng = exam.rng("wires")
    field = canvas.blank()
    if exam.view == "PA" or rng.random() < 0.45:
        return field
    for _ in range(rng.integers(1, 4)):
        pad = (rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.4))
        middle = (pad[0] + rng.normal(0, 0.25), pad[1] + rng.uniform(-0.1, 0.4))
        end = (float(rng.choice([-1.2, 1.2])), rng.uniform(-0.5, 0.9))
        canvas.stroke(field, _arc(pad, middle, end), [0.0045] * 12, 0.012)
        np.maximum(field, canvas.disc(pad, (0.024, 0.024), 0.012), out=field)
    return field


def _arc(start: Point, middle: Point, end: Point) -> list[Point]:
    """Points of the quadratic curve that `middle` pulls between its ends."""
    t = np.linspace(0, 1, 12)
    weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
    return [
        (float(a * start[0] + b * middle[0] + c * end[0]), float(a * start[1] + b * middle[1] + c * end[1]))
        for a, b, c in zip(*weights, strict=True)
    ]


def _borders(canvas: Canvas, exam: Exam, film: Field) -> Field:
    """Some films show the edge of the cassette or of the collimator, slightly askew."""
    rng = exam.rng("borders")
    if rng.random() < 0.6:
        return film
    tone = np.float32(rng.choice([0.02, 0.05, 0.95]))
    lean = rng.normal(0, 0.012)
    for axis in rng.permutation(4)[: rng.integers(1, 4)]:
        depth = 1 - rng.uniform(0.005, 0.09)
        across, along = (
            (canvas.film[None, :], canvas.film[:, None]) if axis < 2 else (canvas.film[:, None], canvas.film[None, :])
        )
        sign = 1 if axis % 2 else -1
        edge = inside(np.float32(depth) - (sign * across + np.float32(lean) * along), 0.008)
        film = film + (tone - film) * edge
    return film


def _develop(film: Field, exam: Exam, technique: Technique) -> NDArray[np.uint8]:
    """Average the supersampled pixels, add grain, round."""
    side = film.shape[0] // SUPERSAMPLING
    averaged = film.reshape(side, SUPERSAMPLING, side, SUPERSAMPLING).mean(axis=(1, 3))
    # Quanta are fewest where the film is bright; enough light is left everywhere for some grain.
    grain = exam.rng("grain").standard_normal((side, side), np.float32) * (np.float32(0.5) + np.float32(0.5) * averaged)
    levels = averaged + np.float32(technique.grain) * grain
    developed: NDArray[np.uint8] = (np.clip(levels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return developed
