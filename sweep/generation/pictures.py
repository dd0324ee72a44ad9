"""Films as PNG files that say how they came about, marks in their corner, and sheets of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from sweep.generation.prompts import Wanted
from trainables.sheets import labelled_sheet, sheet

Film = NDArray[np.uint8]
MARK = "SYNTHETIC"
MARK_SHARE = 1 / 16
MARK_LEAST_PX = 8
"""Height of a mark, as a share of the film's side, and the least height at which it can be read."""
SHEET_COLUMNS = 4
SHEET_FILMS = 64
"""The most films on a sheet."""


def marked(film: Film) -> Film:
    """A film with `SYNTHETIC` burnt into its lower left corner, white on black."""
    picture = Image.fromarray(film)
    side = min(picture.size)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(side * MARK_SHARE, MARK_LEAST_PX))
    place = (side // 64 + 1, picture.height - side // 64 - 1)
    pen.rectangle(pen.textbbox(place, MARK, font=font, anchor="lb"), fill="black")
    pen.text(place, MARK, fill="white", font=font, anchor="lb")
    return np.asarray(picture)


def write_png(film: Film, file: Path, wanted: Wanted, record: Mapping[str, Any]) -> None:
    """Write a film with its prompt, seed and settings in the file's text.

    The text `parameters` is in the form that web UIs write and read; `radiograph_sweep` holds everything as JSON.

    Args:
        film: uint8[height_px, width_px], or [height_px, width_px, 3].
        file: where to.
        wanted: what it was generated for.
        record: the settings: `num_steps`, `guidance_scale`, `adapter`.
    """
    metadata = {"prompt": wanted.prompt, "seed": wanted.seed, **record}
    text = PngInfo()
    text.add_itxt("parameters", _parameters(film, wanted, record))
    text.add_itxt("radiograph_sweep", json.dumps(metadata, default=str))
    text.add_text("Software", "radiograph-sweep")
    Image.fromarray(film).save(file, pnginfo=text)


def _parameters(film: Film, wanted: Wanted, record: Mapping[str, Any]) -> str:
    height, width = film.shape[:2]
    settings = {
        "Steps": record["num_steps"],
        "Sampler": "DPM++ 2M",
        "CFG scale": record["guidance_scale"],
        "Seed": wanted.seed,
        "Size": f"{width}x{height}",
        "Model": record.get("adapter", {}).get("strategy", "pipeline"),
    }
    return f"{wanted.prompt}\n{', '.join(f'{name}: {value}' for name, value in settings.items())}"


def grid(films: Sequence[Film], wanted: Sequence[Wanted]) -> Image.Image:
    """A sheet of the first films: of one prompt in rows of four, of several a row each under the prompt."""
    shown = list(zip(films, wanted, strict=True))[:SHEET_FILMS]
    rows: dict[str, list[Film]] = {}
    for film, request in shown:
        rows.setdefault(request.prompt, []).append(film)
    if len(rows) == 1:
        return sheet([film for film, _ in shown], SHEET_COLUMNS)
    return labelled_sheet({prompt: np.stack(row) for prompt, row in rows.items()})
