"""Films of the benchmark, made small part by part: to the bit as if all had been in memory as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.features.base import BATCH_SIZE
from analysis.films.labelled import LabelledImages, resize
from analysis.studies.chexgenbench import SIDE_PX, TRAINING, BenchmarkData, squash, utility_row
from sweep.scoring.streaming import films_of_side

FULL_PX = 96
NUM_FILMS = 2 * BATCH_SIZE + 9


class Reader:
    """Gives films, and notes how many are asked for at a time."""

    def __init__(self, films: NDArray[np.uint8]) -> None:
        self.films, self.counts = films, list[int]()

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.counts.append(len(rows))
        return self.films[rows]


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (NUM_FILMS, FULL_PX, FULL_PX), np.uint8)


def test_films_are_squashed_as_all_at_once_and_few_are_read_at_a_time(films: NDArray[np.uint8]) -> None:
    read, rows = Reader(films), np.random.default_rng(1).permutation(NUM_FILMS)[:-3]
    np.testing.assert_array_equal(films_of_side(read, rows, SIDE_PX, squash), squash(films[rows]))
    assert max(read.counts) == BATCH_SIZE and sum(read.counts) == len(rows)


def test_classifiers_make_the_same_of_films_that_are_small_beforehand(films: NDArray[np.uint8]) -> None:
    rows = np.arange(NUM_FILMS)
    small = films_of_side(Reader(films), rows, 64)
    np.testing.assert_array_equal(small, resize(films, 64).numpy())
    labels = films.mean(axis=(1, 2))[:, None] > np.median(films.mean(axis=(1, 2)))
    train, test = rows[:40], rows[40:80]
    training = replace(TRAINING, architecture="small", max_epochs=1, batch_size=16)

    def scored(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        every = LabelledImages(pixels, labels, ("bright",))
        data = BenchmarkData(real=every.take(train), synthetic=every.take(train), test=every.take(test))
        return utility_row("mixed", data, training)[1].probabilities

    np.testing.assert_array_equal(scored(small), scored(films))
