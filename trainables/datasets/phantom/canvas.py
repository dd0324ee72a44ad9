"""Drawing in patient coordinates: soft edges, strokes, smooth noise. Everything is vectorised over the picture.

Patient coordinates: x from -1 (the patient's right, left in the picture) to 1, y from -1 (head) to 1 (feet), 0 at the
middle of the film before shift, zoom and rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Doubles = NDArray[np.float64]
Whole = NDArray[np.int64]
Point = tuple[float, float]
Line = tuple[Sequence[Point], Sequence[float]]
"""Points, and half the thickness at each."""
Number = TypeVar("Number", float, Doubles)
COARSE = 16
"""Blocks a side of a blurred field; the side of a film is always a multiple of it."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Where each pixel of the film lies in the patient.

    Attributes:
        side_px: pixels on a side.
        rotation_rad: how far the patient leans, anticlockwise in the picture.
        zoom: patient units per film unit; above one shows more of the body.
        shift: patient coordinates of the middle of the film.
    """

    side_px: int
    rotation_rad: float = 0.0
    zoom: float = 1.0
    shift: Point = (0.0, 0.0)

    @cached_property
    def film(self) -> Field:
        """Film coordinates of the pixel centres along one axis, in [-1, 1]."""
        return ((np.arange(self.side_px, dtype=np.float32) + 0.5) * 2 / self.side_px - 1).astype(np.float32)

    @cached_property
    def _axes(self) -> tuple[Point, Point]:
        cosine, sine = float(np.cos(self.rotation_rad)) * self.zoom, float(np.sin(self.rotation_rad)) * self.zoom
        return (cosine, -sine), (sine, cosine)

    @cached_property
    def x(self) -> Field:
        """Patient x of every pixel, float32[side, side]."""
        (xx, xy), _ = self._axes
        return self.film[None, :] * xx + self.film[:, None] * xy + np.float32(self.shift[0])

    @cached_property
    def y(self) -> Field:
        """Patient y of every pixel, float32[side, side]."""
        _, (yx, yy) = self._axes
        return self.film[None, :] * yx + self.film[:, None] * yy + np.float32(self.shift[1])

    @cached_property
    def lateral(self) -> Field:
        """Distance of every pixel from the middle of the body, float32[side, side]."""
        return np.abs(self.x)

    def blank(self) -> Field:
        """An empty field."""
        return np.zeros((self.side_px, self.side_px), np.float32)

    def to_film(self, point: tuple[Number, Number]) -> tuple[Number, Number]:
        """Film coordinates of a point of the patient, or of many."""
        dx, dy = (point[0] - self.shift[0]) / self.zoom**2, (point[1] - self.shift[1]) / self.zoom**2
        (xx, xy), (yx, yy) = self._axes
        return dx * xx + dy * yx, dx * xy + dy * yy

    def disc(self, centre: Point, radii: Point, edge: float, tilt_rad: float = 0.0) -> Field:
        """A filled ellipse, 1 inside and 0 outside, with an edge as soft as `edge` patient units.

        Args:
            centre: in patient coordinates.
            radii: along and across the axis, in patient units.
            edge: width of the soft edge, in patient units.
            tilt_rad: how far the axis is turned.
        """
        return inside((self.ellipse(centre, radii, tilt_rad) - 1) * min(radii), edge)

    def ellipse(self, centre: Point, radii: Point, tilt_rad: float = 0.0) -> Field:
        """Distance from the centre in units of the radii: 1 on the ellipse.

        Args:
            centre: in patient coordinates.
            radii: along and across the axis, in patient units.
            tilt_rad: how far the axis is turned.
        """
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        cosine, sine = np.float32(np.cos(tilt_rad)), np.float32(np.sin(tilt_rad))
        along = (dx * cosine + dy * sine) / np.float32(radii[0])
        across = (dy * cosine - dx * sine) / np.float32(radii[1])
        return np.sqrt(along * along + across * across)

    def stroke(self, field: Field, points: Sequence[Point], radii: Sequence[float], edge: float = 0.012) -> None:
        """Draw a line through the points into the field, as the maximum of what is there and the line.

        Args:
            field: drawn into.
            points: patient coordinates.
            radii: half the line's thickness at each point; thin lines fade instead of vanishing between pixels.
            edge: softness in patient units.
        """
        self.strokes(field, [(points, radii)], edge)

    def strokes(self, field: Field, lines: Sequence[Line], edge: float = 0.012) -> None:
        """Draw many lines as `stroke` draws each, at once: a film has hundreds, of a few pixels each.

        Args:
            field: drawn into.
            lines: points with their radii.
            edge: softness in patient units.
        """
        pairs = [pair for points, radii in lines for pair in pairwise(zip(points, radii, strict=True))]
        ends = np.array([(*start, *end, first, last) for (start, first), (end, last) in pairs])
        x0, y0 = self.to_film((ends[:, 0], ends[:, 1]))
        x1, y1 = self.to_film((ends[:, 2], ends[:, 3]))
        first, last, soft = ends[:, 4] / self.zoom, ends[:, 5] / self.zoom, edge / self.zoom
        reach = np.maximum(first, last) + soft
        segment, row, column = _windows(self._span(y0, y1, reach), self._span(x0, x1, reach))
        dx, dy, left, top, thick = (_each(values, segment) for values in (x1 - x0, y1 - y0, x0, y0, first))
        px, py = self.film[column] - left, self.film[row] - top
        along = (px * dx + py * dy) / _each((x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-9, segment)
        along = np.minimum(np.maximum(along, 0, out=along), 1, out=along)
        distance: Field = np.hypot(px - along * dx, py - along * dy)
        distance -= thick + along * _each(last - first, segment)
        np.maximum.at(field, (row, column), inside(distance, soft))

    def _span(self, start: Doubles, end: Doubles, reach: Doubles) -> tuple[Whole, Whole]:
        """First pixel along an axis and the one after the last, of each segment."""
        low, high, half = np.minimum(start, end) - reach, np.maximum(start, end) + reach, self.side_px / 2
        stop = np.minimum(((high + 1) * half).astype(np.int64) + 2, self.side_px)
        return np.maximum(((low + 1) * half).astype(np.int64), 0), np.maximum(stop, 0)

    def noise(self, rng: np.random.Generator, cells: int, octaves: int = 1) -> Field:
        """Smooth noise, about standard normal: `cells` bumps a side, finer and fainter in each octave.

        Args:
            rng: random numbers.
            cells: bumps a side in the first octave.
            octaves: how many, each of twice as many bumps at 0.6 of the height.
        """
        field = self.blank()
        for octave in range(octaves):
            count = cells * 2**octave
            field += np.float32(0.6**octave) * spline(
                rng.standard_normal((count + 3, count + 3), np.float32), self.side_px
            )
        spread = sum(0.36**octave for octave in range(octaves)) ** 0.5
        scaled: Field = np.multiply(field, np.float32(1.36 / spread))
        return scaled

    def blur(self, field: Field, radius: float) -> Field:
        """Gaussian blur with a standard deviation of at least 0.2 film units; only what is on the film counts."""
        block = self.side_px // COARSE
        coarse = field.reshape(COARSE, block, COARSE, block).mean(axis=(1, 3))
        kernel = _gaussian_weights(round(radius, 3))
        return spline((kernel @ coarse @ kernel.T).astype(np.float32), self.side_px)


def _windows(rows: tuple[Whole, Whole], columns: tuple[Whole, Whole]) -> tuple[Whole, Whole, Whole]:
    """The pixels of windows one after the other: the number of the window, row and column of each."""
    height, width = (np.maximum(stop - start, 0) for start, stop in (rows, columns))
    window = np.repeat(np.arange(len(width)), height * width)
    within = np.arange(len(window)) - np.repeat(np.cumsum(height * width) - height * width, height * width)
    down, across = np.divmod(within, width[window])
    return window, rows[0][window] + down, columns[0][window] + across


def _each(values: Doubles, segment: Whole) -> Field:
    """The value of the segment that each pixel belongs to."""
    of_each: Field = values.astype(np.float32)[segment]
    return of_each


def spline(controls: Field, side_px: int) -> Field:
    """A uniform cubic B-spline surface over the film.

    Not a product of matrices: those would wake the threads of BLAS, which costs more than the product.

    Args:
        controls: float32[cells + 3, cells + 3].
        side_px: side of the result.
    """
    cell, basis = _spline_basis(controls.shape[0] - 3, side_px)
    rows: Field = sum(basis[offset][:, None] * controls[cell + offset] for offset in range(4))
    surface: Field = sum(basis[offset] * rows[:, cell + offset] for offset in range(4))
    return surface


def inside(distance: Field, edge: float) -> Field:
    """1 where the signed distance is below -edge, 0 above edge, smooth between."""
    ramp = np.float32(0.5) - distance * np.float32(0.5 / edge)
    # Half the cost of np.clip on small windows, and this is called hundreds of times a film.
    ramp = np.minimum(np.maximum(ramp, 0, out=ramp), 1, out=ramp)
    field: Field = ramp * ramp * (3 - 2 * ramp)
    return field


def bell(distance: Field) -> Field:
    """exp(-d^2 / 2)."""
    field: Field = np.exp(np.float32(-0.5) * distance * distance)
    return field


def curve(at: Field, knots: Sequence[Point]) -> Field:
    """A piecewise linear function through the knots, evaluated everywhere."""
    positions, values = zip(*knots, strict=True)
    field: Field = np.interp(at, positions, values).astype(np.float32)
    return field


@lru_cache(maxsize=64)
def _spline_basis(cells: int, side_px: int) -> tuple[NDArray[np.int64], Field]:
    """The cell of each pixel along an axis, and the weights of its four control values, float32[4, side]."""
    position = (np.arange(side_px) + 0.5) / side_px * cells
    cell = np.minimum(position.astype(np.int64), cells - 1)
    t = position - cell
    basis = np.stack(((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)) / 6
    return cell, basis.astype(np.float32)


@lru_cache(maxsize=64)
def _gaussian_weights(radius: float) -> Field:
    """Weights of the coarse blocks in each control value of a spline with as many cells."""
    blocks = (np.arange(COARSE) + 0.5) * 2 / COARSE
    controls = (np.arange(COARSE + 3) - 1) * 2 / COARSE
    weights = np.exp(-0.5 * ((controls[:, None] - blocks[None, :]) / radius) ** 2)
    normalised: Field = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised
