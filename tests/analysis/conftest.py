"""Phantom films whose truth is known, and a classifier trained on them, shared by the tests of the studies."""

from __future__ import annotations

import pytest
from phantom_films import PhantomFilms, labelled_films

from analysis.studies.classifiers import ImageClassifier, train_classifier
from trainables.datasets.phantom import PhantomSource


@pytest.fixture(scope="session")
def phantom() -> PhantomFilms:
    """About 740 training, 160 validation and 160 test films at 64 px, split by patient."""
    source = PhantomSource(num_patients=560, seed=41)
    train, validation, test = (labelled_films(source, split) for split in ("train", "validation", "test"))
    return PhantomFilms(source=source, train=train, validation=validation, test=test)


@pytest.fixture(scope="session")
def classifier(phantom: PhantomFilms) -> ImageClassifier:
    """The small classifier, trained as by default."""
    return train_classifier(phantom.train, phantom.validation)
