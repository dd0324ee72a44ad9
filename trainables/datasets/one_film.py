"""A film of a collection: its file, with what is known of it before and after it was looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.film_files import FilmFile
from trainables.datasets.labels import FilmLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A file with what is known of it."""

    path: FilmFile
    """The image file, or the row that holds it."""
    labels: FilmLabels
    """What the collection's table says of it: patient, findings, age, sex, view."""
    image_id: str
    """Name of its file without the ending; its path in the collection where several films would have that name."""
    split: str = ""
    """`train`, `validation` or `test`; empty until it is drawn."""
    caption: str | None = None
    """Its own text, where captions are such."""
    file_hash: bytes = b""
    """SHA-256 of its file, once it was looked at."""
    place: int | None = None
    """Which film of its split's waiting file it is, if its picture was made at the first look."""

    def prompt(self, prompts: PromptTemplate) -> str:
        """Its caption by the template."""
        known = self.labels
        return prompts.prompt(known.findings, view=known.view, age=known.age, sex=known.sex, text=self.caption)

    def sample(self, prompts: PromptTemplate, image: NDArray[np.uint8]) -> ImageTextSample:
        """What is written of it, with its picture."""
        known = self.labels
        return ImageTextSample(
            image=image,
            prompt=self.prompt(prompts),
            conditions=known.findings,
            patient_id=known.patient_id,
            image_id=self.image_id,
            age=known.age,
            sex=known.sex,
            view=known.view,
            unknown=known.unknown,
        )
