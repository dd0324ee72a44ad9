"""Phantom films with their truth, by split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.films.labelled import LabelledImages
from trainables.datasets.base import CONDITIONS
from trainables.datasets.phantom import PhantomSource


@dataclass(frozen=True, kw_only=True)
class PhantomFilms:
    """A phantom with its films by split."""

    source: PhantomSource
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def labelled_films(source: PhantomSource, split: str) -> LabelledImages:
    """All films of a split with their conditions and patients."""
    samples = list(source.samples(split))
    labels = np.array([[condition in sample.conditions for condition in CONDITIONS] for sample in samples])
    patients = tuple(sample.patient_id for sample in samples)
    return LabelledImages(np.stack([sample.image for sample in samples]), labels, CONDITIONS, patients)
