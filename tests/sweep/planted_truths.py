"""Generators and a classifier of which it is known what a final evaluation must find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.films.gallery import Gallery
from analysis.studies.classifiers import ImageClassifier
from analysis.studies.networks import build_classifier
from sweep.final.bench import Finalist, Workbench, only
from sweep.scoring.plans import GenerationPlan
from trainables.datasets.base import SPLITS


class Copying(Workbench):
    """Its generator gives training films, and its galleries are counted."""

    num_galleries = 0

    def training_films(self) -> Gallery:
        self.num_galleries += 1
        return super().training_films()

    def _generate(self, finalist: Finalist, plan: GenerationPlan) -> NDArray[np.uint8]:
        return self.splits["train"].images(np.arange(len(plan)))


class Knowing(Workbench):
    """Its generator gives the real films of the captions."""

    def _generate(self, finalist: Finalist, plan: GenerationPlan) -> NDArray[np.uint8]:
        split = next(name for name in self.plans if self.plans[name] is plan)
        return self.splits[split].images(plan.rows)


class Mistaken(Knowing):
    """The same films, for the captions of others."""

    def _generate(self, finalist: Finalist, plan: GenerationPlan) -> NDArray[np.uint8]:
        order = np.argsort([label[0] for label in plan.labels], kind="stable")
        films = np.empty_like(super()._generate(finalist, plan))
        films[order] = np.roll(super()._generate(finalist, plan)[order], len(plan) // 2, axis=0)
        return films


class KnowsFilms(ImageClassifier):
    """Is sure of what the real films show, and knows no others: what it says depends on no training and no processor."""

    def __init__(self, bench: Workbench) -> None:
        conditions = bench.learnable()
        super().__init__(
            build_classifier("small", len(conditions)), architecture="small", conditions=conditions, device="cpu"
        )
        real = [only(bench.real(split), conditions) for split in SPLITS]
        self.shown = {film.tobytes(): row for part in real for film, row in zip(part.images, part.labels, strict=True)}

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.array([self.shown[film.tobytes()] for film in images], np.float64)
