"""A picture of a prepared data set: films of each condition, to look at before anything is trained."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from trainables.datasets.store import PreparedDataset, PreparedSplit

COLUMNS = 10
TILE_PX = 128
LINE_PX = 16


def contact_sheet(prepared: PreparedDataset) -> Image.Image:
    """A picture with a row of training films for each condition, labelled with all their findings."""
    split = prepared.split("train")
    height = (TILE_PX + LINE_PX) * len(prepared.conditions)
    sheet = Image.new("L", (TILE_PX * COLUMNS, height))
    for row, condition in enumerate(prepared.conditions):
        _draw_row(sheet, split, condition, row * (TILE_PX + LINE_PX))
    return sheet


def _draw_row(sheet: Image.Image, split: PreparedSplit, condition: str, top: int) -> None:
    with_it = split.indices_with(condition)
    # Spread over the split: neighbours are often films of one patient.
    chosen = with_it[np.linspace(0, len(with_it) - 1, min(COLUMNS, len(with_it))).astype(int)]
    ImageDraw.Draw(sheet).text((4, top + 2), f"{condition} ({len(with_it)} films for training)", fill=220)
    for column, index in enumerate(chosen):
        tile = Image.fromarray(split.image(int(index))).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
        sheet.paste(tile, (column * TILE_PX, top + LINE_PX))
