"""A source whose captions are free text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import FREE_TEXT
from trainables.datasets.phantom import PhantomSource

TEMPLATED = PhantomSource(num_patients=60, seed=2)


@cache
def templated(split: str) -> tuple[ImageTextSample, ...]:
    """Films of the phantom, drawn once in a process."""
    return tuple(TEMPLATED.samples(split))


class FreeTextPhantom(PhantomSource):
    """Phantom films with a caption of its own for each."""

    def __init__(self) -> None:
        super().__init__(num_patients=TEMPLATED.num_patients, seed=TEMPLATED.seed)
        self.prompts = FREE_TEXT

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        for sample in templated(split):
            yield replace(sample, prompt=f"{sample.image_id}: see the lungs")

    def fingerprint(self) -> str:
        return f"free text of {TEMPLATED.fingerprint()}"
