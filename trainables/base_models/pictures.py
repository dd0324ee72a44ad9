"""Generated captioned colour pictures: the non-medical world on which the mini base model is pretrained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40),
    "green": (45, 155, 65),
    "blue": (45, 80, 200),
    "yellow": (235, 210, 50),
    "orange": (235, 135, 35),
    "purple": (130, 60, 170),
    "pink": (240, 150, 185),
    "brown": (120, 75, 40),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
    "teal": (35, 150, 150),
    "gold": (205, 165, 60),
}
SIZES: dict[str, float] = {"small": 0.16, "medium-sized": 0.25, "large": 0.36}
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (0.28, 0.5),
    "on the right": (0.72, 0.5),
    "at the top": (0.5, 0.28),
    "at the bottom": (0.5, 0.72),
    "in the centre": (0.5, 0.5),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "bar", "oval", "crescent")
BACKGROUNDS = ("plain", "striped", "checkered", "cloudy", "dotted", "shaded", "grainy", "wavy")
_OPENINGS = ("a photo of", "a picture of", "an image of", "a painting of", "")
_SUPERSAMPLE = 3


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One picture, `uint8[size, size, 3]`, and what it shows.

    Attributes:
        pixels: uint8[size, size, 3], RGB.
        caption: says shape, colours and texture, in the words that the mini base learns.
    """

    pixels: NDArray[np.uint8]
    caption: str


ROUND = ("circle", "ring", "crescent", "oval")
"""Shapes without corners."""


def picture(seed: int, size_px: int = 64) -> CaptionedPicture:
    """Draw one captioned picture.

    Args:
        seed: the same seed gives the same picture and caption.
        size_px: side of the square in pixels.

    Returns:
        The picture as `uint8[size_px, size_px, 3]` with its caption.
    """
    rng = np.random.default_rng(seed)
    canvas_px = size_px * _SUPERSAMPLE
    backdrop, words = _background(rng, canvas_px)
    phrases = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
        backdrop, phrase = _add_shape(rng, backdrop)
        phrases.append(phrase)
    small = backdrop.resize((size_px, size_px), Image.Resampling.BOX)
    pixels: NDArray[np.float64] = np.asarray(small, dtype=np.float64)
    caption = f"{rng.choice(_OPENINGS)} {' and '.join(phrases)} on {words}".strip()
    if rng.random() < 0.3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
        caption = f"{caption}, {rng.choice(['black and white', 'in grey', 'without colour'])}"
    pixels = pixels + rng.normal(0.0, rng.uniform(0.0, 4.0), pixels.shape[:2])[..., None]
    return CaptionedPicture(np.clip(pixels, 0, 255).astype(np.uint8), caption)


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _shade(rng: np.random.Generator, colour: str) -> NDArray[np.float32]:
    jitter = rng.normal(0.0, 12.0, 3)
    return np.clip(np.asarray(COLOURS[colour], dtype=np.float32) + jitter, 0, 255).astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> tuple[Image.Image, str]:
    kind, first = str(rng.choice(BACKGROUNDS)), str(rng.choice(list(COLOURS)))
    second = str(rng.choice([name for name in COLOURS if name != first]))
    weight = np.clip(_pattern(rng, kind, size), 0.0, 1.0)[..., None]
    pixels = (1 - weight) * _shade(rng, first) + weight * _shade(rng, second)
    words = f"a plain {first} background" if kind == "plain" else f"{_article(kind)} {first} and {second} background"
    return Image.fromarray(pixels.astype(np.uint8)), words


def _pattern(rng: np.random.Generator, kind: str, size: int) -> NDArray[Any]:
    """Blend weight of the second colour, `float[size, size]` about 0 to 1."""
    angle, period = rng.uniform(0, np.pi), size * rng.uniform(0.1, 0.35)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    stripes, rows = np.sin(2 * np.pi * along / period), np.sin(2 * np.pi * across / period)
    patterns: dict[str, Callable[[], NDArray[Any]]] = {
        "plain": lambda: np.zeros((size, size)),
        "striped": lambda: stripes > 0,
        "checkered": lambda: (np.floor(along / period) + np.floor(across / period)) % 2,
        "dotted": lambda: stripes * rows > 0.45,
        "wavy": lambda: 0.5 + 0.5 * np.sin(2 * np.pi * (along + 0.3 * period * np.sin(across / period * 3)) / period),
        "shaded": lambda: (along - along.min()) / max(float(np.ptp(along)), 1.0),
        "cloudy": lambda: _fractal_noise(rng, size, exponent=2.2),
        "grainy": lambda: _fractal_noise(rng, size, exponent=1.1),
    }
    weights: NDArray[np.float32] = patterns[kind]().astype(np.float32)
    return weights


def _fractal_noise(rng: np.random.Generator, size: int, exponent: float) -> NDArray[Any]:
    """Noise whose power falls with spatial frequency, scaled to 0 to 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency ** (exponent / 2 + 0.5)
    spectrum[0, 0] = 0.0
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum, (size, size))
    scaled: NDArray[np.float32] = (0.5 + 0.22 * noise / noise.std()).astype(np.float32)
    return scaled


def _add_shape(rng: np.random.Generator, backdrop: Image.Image) -> tuple[Image.Image, str]:
    shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
    size_word, place = str(rng.choice(list(SIZES))), str(rng.choice(list(PLACES)))
    canvas = backdrop.width
    centre = (np.asarray(PLACES[place]) + rng.normal(0, 0.05, 2)) * canvas
    mask = _shape_mask(rng, shape, centre, SIZES[size_word] * canvas * rng.uniform(0.85, 1.15), canvas)
    soft = rng.random() < 0.25
    if soft:
        mask = mask.filter(ImageFilter.GaussianBlur(canvas * 0.03))
    fill = np.broadcast_to(_shade(rng, colour), (canvas, canvas, 3)).copy()
    if rng.random() < 0.5:
        fill += 45 * (_fractal_noise(rng, canvas, rng.uniform(1.0, 2.5)) - 0.5)[..., None]
    body = Image.fromarray(np.clip(fill, 0, 255).astype(np.uint8))
    phrase = " ".join(word for word in (size_word, "soft" if soft else "", colour, shape) if word)
    return Image.composite(body, backdrop, mask), f"{_article(phrase)} {place}"


def _shape_mask(
    rng: np.random.Generator, shape: str, centre: NDArray[np.float64], radius: float, canvas: int
) -> Image.Image:
    mask = Image.new("L", (canvas, canvas), 0)
    draw = ImageDraw.Draw(mask)
    turn = rng.uniform(0, 2 * np.pi)
    if shape in ROUND:
        _draw_round(draw, shape, centre, radius, turn=turn)
    for reach, angles in _corners(shape):
        ends = zip(reach, angles, strict=True)
        draw.polygon(
            [(centre[0] + radius * r * np.cos(a + turn), centre[1] + radius * r * np.sin(a + turn)) for r, a in ends],
            fill=255,
        )
    return mask


def _draw_round(
    draw: ImageDraw.ImageDraw, shape: str, centre: NDArray[np.float64], radius: float, *, turn: float
) -> None:
    def disc(x: float, y: float, width: float, height: float, fill: int) -> None:
        draw.ellipse((x - width, y - height, x + width, y + height), fill=fill)

    wide, high = (1.2, 0.65) if shape == "oval" else (1, 1)
    disc(centre[0], centre[1], radius * wide, radius * high, 255)
    if shape == "ring":
        disc(centre[0], centre[1], radius * 0.6, radius * 0.6, 0)
    if shape == "crescent":
        x, y = centre[0] + 0.55 * radius * np.cos(turn), centre[1] + 0.55 * radius * np.sin(turn)
        disc(x, y, radius * 0.8, radius * 0.8, 0)


def _corners(shape: str) -> list[tuple[list[float], NDArray[np.float64]]]:
    """How far the corners of a shape's polygons reach, in radii, and their angles in radians."""
    if shape in ROUND:
        return []
    if shape in ("square", "triangle"):
        corners = 4 if shape == "square" else 3
        return [([1.0] * corners, np.arange(corners) * 2 * np.pi / corners)]
    if shape == "star":
        return [([1.0, 0.42] * 5, np.arange(10) * np.pi / 5)]
    if shape == "bar":
        return [([1.3] * 4, np.asarray([-0.2, 0.2, np.pi - 0.2, np.pi + 0.2]))]
    ends = np.asarray([-0.28, 0.28, np.pi - 0.28, np.pi + 0.28])
    return [([1.0] * 4, ends + offset) for offset in (0.0, np.pi / 2)]
