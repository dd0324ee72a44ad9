"""Copies beside the films that they repeat, for the eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from analysis.checks import expect
from analysis.films.labelled import check_images
from analysis.studies.memorisation import CopyPair

GAP_PX = 4
LABEL_PX = 14


def pairs_sheet(
    generated: NDArray[np.uint8], train: NDArray[np.uint8], copies: Sequence[CopyPair], *, side_px: int = 128
) -> Image.Image:
    """Copies beside what they repeat, a pair a row: generated on the left, the training film on the right.

    Args:
        generated: uint8[k, H, W], the generated film of each pair.
        train: uint8[k, H, W], the training film of each.
        copies: k >= 1 pairs.
        side_px: of each film on the sheet.

    Raises:
        ValueError: there are no pairs, or an array does not hold a film a pair.
    """
    expect(len(copies) > 0, "`copies` must hold a pair to show", len(copies), "Nothing was copied.")
    counts = (len(check_images(generated)), len(check_images(train)))
    rule = f"`generated` and `train` must be {len(copies)} films, one a pair"
    expect(counts == (len(copies), len(copies)), rule, counts, "Take the films of the pairs.")
    row_px = side_px + LABEL_PX + GAP_PX
    page = Image.new("RGB", (2 * side_px + 3 * GAP_PX, len(copies) * row_px + GAP_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default()
    for number, (pair, *films) in enumerate(zip(copies, generated, train, strict=True)):
        top = GAP_PX + number * row_px
        label = f"generated {pair.generated} | train {pair.train} | {pair.space} {pair.ratio:.2f}"
        pen.text((GAP_PX, top), label, fill="black", font=font)
        for column, film in enumerate(films):
            tile = Image.fromarray(film).convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
            page.paste(tile, (GAP_PX + column * (side_px + GAP_PX), top + LABEL_PX))
    return page
