"""Small folders of films with a table, made to be spoilt."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEADER = ("file", "patient_id", "age", "sex", "view", "labels")
LABELS = ("No Finding", "Effusion", "Edema|Effusion")
NUM_FILMS = 120
FILM_PX = 64

Row = list[str]
Pixels = NDArray[np.uint8]


def film(number: int, deepest: int = 255) -> NDArray[np.float64]:
    """A picture of its own for every number, smooth as films are, from 0 to the deepest level."""
    across = np.random.default_rng(number).uniform(size=(5, 5))
    smooth = np.asarray(Image.fromarray(across).resize((FILM_PX, FILM_PX), Image.Resampling.BICUBIC))
    grey: NDArray[np.float64] = (smooth - smooth.min()) / (smooth.max() - smooth.min()) * deepest
    return grey


def film_rows(num_films: int = NUM_FILMS) -> list[Row]:
    """Rows of films in folder images, two of each patient."""
    return [
        [f"images/{n}.png", str(n // 2 + 1), str(20 + n % 60), "FM"[n // 2 % 2], ("PA", "AP")[n % 2], LABELS[n % 3]]
        for n in range(num_films)
    ]


def write_table(root: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return root


def write_films(root: Path, num_films: int = NUM_FILMS, save: Callable[[Path, int], None] | None = None) -> None:
    """One picture for each row of `film_rows`; `save` may write others under the names that it is given."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in range(num_films):
        (save or save_film)(root / "images" / f"{number}.png", number)


def save_film(path: Path, number: int) -> None:
    Image.fromarray(film(number).astype(np.uint8)).save(path)
