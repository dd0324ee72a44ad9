"""A source whose captions are free text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import FREE_TEXT
from trainables.datasets.phantom import PhantomSource


class FreeTextPhantom(PhantomSource):
    """Phantom films with a caption of its own for each."""

    def __init__(self) -> None:
        super().__init__(num_patients=60, seed=2)
        self.templated, self.prompts = PhantomSource(num_patients=60, seed=2), FREE_TEXT

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        for sample in self.templated.samples(split):
            yield replace(sample, prompt=f"{sample.image_id}: see the lungs")

    def fingerprint(self) -> str:
        return f"free text of {self.templated.fingerprint()}"
