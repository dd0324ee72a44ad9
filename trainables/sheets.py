"""Sheets of images, for the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP_PX = 2
LABEL_HEIGHT_PX = 16


def sheet(images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], columns: int, *, scale: int = 1) -> Image.Image:
    """All images on one sheet, row by row.

    Args:
        images: equally large images, uint8[n, height_px, width_px] grey or [n, height_px, width_px, 3].
        columns: images a row, at least 1.
        scale: every pixel becomes a square of this side.

    Raises:
        ValueError: there are no images, or `columns` is less than 1.
    """
    if len(images) == 0 or columns < 1:
        came = f"{len(images)} images in {columns} columns"
        raise ValueError(f"`images` and `columns` must be at least 1 each, but got {came}. Generate images first.")
    tiles = [Image.fromarray(image).convert("RGB") for image in images]
    width, height = tiles[0].width * scale, tiles[0].height * scale
    shown = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (shown * (width + GAP_PX) + GAP_PX, rows * (height + GAP_PX) + GAP_PX), "white")
    for index, tile in enumerate(tiles):
        corner = (GAP_PX + index % columns * (width + GAP_PX), GAP_PX + index // columns * (height + GAP_PX))
        page.paste(tile.resize((width, height), Image.Resampling.NEAREST), corner)
    return page


def labelled_sheet(rows: Mapping[str, NDArray[Any]], *, scale: int = 1) -> Image.Image:
    """One row of images for each label, the label above it.

    Args:
        rows: label, such as a condition, to its images, uint8[n, height_px, width_px] or [n, height_px, width_px, 3].
        scale: every pixel becomes a square of this side.
    """
    strips = {label: sheet(images, max(len(images), 1), scale=scale) for label, images in rows.items()}
    width = max(strip.width for strip in strips.values())
    height = sum(strip.height + LABEL_HEIGHT_PX for strip in strips.values())
    page = Image.new("RGB", (width, height), "white")
    pen, font, top = ImageDraw.Draw(page), ImageFont.load_default(), 0
    for label, strip in strips.items():
        pen.text((GAP_PX, top + 2), label, fill="black", font=font)
        page.paste(strip, (0, top + LABEL_HEIGHT_PX))
        top += LABEL_HEIGHT_PX + strip.height
    return page
