"""How each finding changes the lungs. An enlarged heart is part of the chest's shape; the others are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from trainables.datasets.phantom.canvas import Canvas, Field, Line, bell, inside
from trainables.datasets.phantom.lungs import HILUM
from trainables.datasets.phantom.patients import Exam
from trainables.datasets.phantom.shape import ChestMap, Shape, cage_at


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One film before the lungs are diseased.

    Attributes:
        canvas: where the film's pixels lie in the patient.
        exam: whose film it is, with its findings.
        shape: the measures of the chest.
        chest: where the organs are.
    """

    canvas: Canvas
    exam: Exam
    shape: Shape
    chest: ChestMap


@dataclass(frozen=True, kw_only=True)
class Lungs:
    """What the beam meets in the lungs, each float32[side, side]."""

    air: Field
    """Thickness of aerated lung."""
    markings: Field
    """Vessels and texture, as density."""
    density: Field
    """Fluid, lines and consolidation, as density added."""


def add_findings(scene: Scene, lungs: Lungs) -> Lungs:
    """Draw all findings of the film, those of the lung tissue first, fluid and free air over them."""
    for condition, draw in FINDINGS.items():
        if scene.exam.has(condition):
            lungs = draw(scene, lungs)
    return lungs


def edema(scene: Scene, lungs: Lungs) -> Lungs:
    """Haze around both hila, full vessels with blurred outlines, and septal lines at the edge of the lungs."""
    canvas, severity = scene.canvas, scene.exam.severity("Edema")
    rng = scene.exam.rng("edema")
    wings = bell((canvas.lateral - np.float32(0.24)) / np.float32(0.19)) * bell(
        (canvas.y - np.float32(HILUM[1] + 0.10)) / np.float32(0.30)
    )
    fluffy = np.clip(1 + np.float32(0.34) * canvas.noise(rng, 10, 3), 0.3, 1.7)
    haze = np.clip(np.float32(0.54 + 0.28 * severity) * wings * fluffy + np.float32(0.10 + 0.08 * severity), 0, 0.85)
    septal = _septal_lines(scene, rng) * scene.chest.thorax
    return replace(
        lungs,
        air=lungs.air * (1 - haze),
        markings=lungs.markings * np.float32(1.2),
        density=lungs.density + np.float32(0.07 + 0.05 * severity) * septal,
    )


def _septal_lines(scene: Scene, rng: np.random.Generator) -> Field:
    """Kerley B lines: short, level, reaching the side of the lung near its base."""
    field = scene.canvas.blank()
    base = scene.shape.dome[0]
    lines: list[Line] = []
    for side in (-1, 1):
        for height in base - np.arange(7) * 0.045 + rng.normal(0, 0.01, 7):
            edge = _edge_at(float(height), scene.shape)
            start, end = (
                (side * (edge - 0.02), float(height)),
                (side * (edge - rng.uniform(0.08, 0.14)), float(height) - 0.01),
            )
            lines.append(([start, end], [0.006, 0.004]))
    scene.canvas.strokes(field, lines)
    return field


def lung_opacity(scene: Scene, lungs: Lungs) -> Lungs:
    """One to three patches of dense lung with uneven edges, in the zones that the patient's own numbers choose."""
    body, film = scene.exam.patient.rng("opacity"), scene.exam.rng("opacity")
    severity = scene.exam.severity("Lung Opacity")
    patches = scene.canvas.blank()
    for index in range(1 + int(body.random() < 0.3) + int(body.random() < 0.15)):
        side = scene.exam.patient.side * (1 if index == 0 or body.random() < 0.5 else -1)
        height = body.uniform(-0.48, 0.26) + film.normal(0, 0.015)
        edge = _edge_at(float(height), scene.shape)
        away = edge * body.uniform(0.50, 0.74) if side < 0 or height < 0 else edge * body.uniform(0.68, 0.78)
        radius = body.uniform(0.12, 0.17) + 0.07 * severity
        patch = scene.canvas.ellipse(
            (side * away, height), (radius * body.uniform(0.9, 1.3), radius), body.uniform(-1, 1)
        )
        np.maximum(patches, inside(patch - 0.75, 0.55), out=patches)
    uneven = np.clip(np.float32(0.95) + np.float32(0.30) * scene.canvas.noise(body, 11, 2), 0.4, 1.3)
    dense = np.clip(patches * uneven * np.float32(0.72 + 0.22 * severity), 0, 0.92)
    return replace(
        lungs, air=lungs.air * (1 - dense), density=lungs.density + np.float32(0.05) * dense * scene.chest.thorax
    )


def pleural_effusion(scene: Scene, lungs: Lungs) -> Lungs:
    """Fluid that fills the costophrenic angle and climbs along the chest wall; on both sides in edema."""
    canvas, shape = scene.canvas, scene.shape
    severity = scene.exam.severity("Pleural Effusion")
    sides = (-1, 1) if scene.exam.has("Edema") else (scene.exam.patient.side,)
    fluid = canvas.blank()
    for side in sides:
        floor = shape.dome[0 if side < 0 else 1] + shape.dome_bulge
        climb = np.float32(0.26 + 0.42 * severity) * (np.float32(0.45) + np.float32(0.55) * scene.chest.relative**3)
        surface = np.float32(floor) - climb
        half = inside(-side * canvas.x, 0.05)
        fluid += half * inside(surface - canvas.y, 0.06)
    fluid *= scene.chest.thorax
    return Lungs(
        air=lungs.air * (1 - np.float32(0.95) * fluid),
        markings=lungs.markings * (1 - np.float32(0.9) * fluid),
        density=lungs.density + np.float32(0.14) * fluid,
    )


def pneumothorax(scene: Scene, lungs: Lungs) -> Lungs:
    """Air without vessels outside a thin pleural line; the lung within is smaller and denser."""
    canvas, shape, side = scene.canvas, scene.shape, scene.exam.patient.side
    severity = scene.exam.severity("Pneumothorax")
    base = scene.exam.patient.rng("pneumothorax").uniform(0.3, 0.8)
    drop, rim = 0.10 + 0.22 * severity, 0.17 + 0.24 * severity
    taper = np.clip((np.float32(shape.dome[0]) - canvas.y) / np.float32(shape.dome[0] - shape.apex), 0, 1)
    margin = cage_at(canvas.y - np.float32(drop) * taper, shape) * (
        1 - np.float32(rim) * (np.float32(base) + np.float32(1 - base) * taper)
    )
    beyond = canvas.lateral - margin
    half = inside(-side * canvas.x, 0.04)
    free = half * inside(-beyond, 0.02) * scene.chest.thorax * (1 - scene.chest.mediastinum)
    shrunken = half * (1 - free)
    line = half * bell(beyond / np.float32(0.011)) * scene.chest.thorax * (1 - scene.chest.mediastinum)
    depth = np.sqrt(np.clip(1 - scene.chest.relative**5, 0, 1))
    pure = scene.chest.thorax * (np.float32(0.35) + np.float32(0.9) * depth) * (1 - np.float32(0.8) * scene.chest.heart)
    return Lungs(
        air=lungs.air * (1 - free) * (1 - np.float32(0.10 + 0.22 * severity) * shrunken) + free * pure,
        markings=lungs.markings * (1 - free) * (1 + np.float32(0.2) * shrunken),
        density=lungs.density * (1 - free) + np.float32(0.11) * line,
    )


def _edge_at(height: float, shape: Shape) -> float:
    return float(cage_at(np.full(1, height, np.float32), shape)[0])


FINDINGS: Mapping[str, Callable[[Scene, Lungs], Lungs]] = {
    "Edema": edema,
    "Lung Opacity": lung_opacity,
    "Pneumothorax": pneumothorax,
    "Pleural Effusion": pleural_effusion,
}
