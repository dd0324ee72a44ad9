"""Utility: intervals in closed form, arms of equal size, and worthless films that are found to be worthless."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from phantom_films import PhantomFilms
from scipy import stats

from analysis.films.labelled import LabelledImages
from analysis.studies.classifiers import TrainingSettings
from analysis.studies.utility import CLASSIFIER_SCORES, Utility, UtilityData, compare_arms, draw_arm, t_interval


def shuffled(films: LabelledImages) -> LabelledImages:
    """The same films with the labels of others: what a generator gives that ignores its prompts."""
    labels = np.random.default_rng(0).permutation(films.labels)
    return LabelledImages(films.images, labels, films.conditions)


@pytest.fixture(scope="module")
def data(phantom: PhantomFilms) -> UtilityData:
    """300 real films, and 360 others as the synthetic ones, whose labels are wrong."""
    rows = np.arange(len(phantom.train))
    real, synthetic = phantom.train.take(rows[:300]), shuffled(phantom.train.take(rows[-360:]))
    return UtilityData(real=real, synthetic=synthetic, validation=phantom.validation, test=phantom.test)


@pytest.fixture(scope="module")
def utility(data: UtilityData) -> Utility:
    """All equal arms with two seeds."""
    return compare_arms(data, TrainingSettings(max_epochs=6, patience=6), seeds=(0, 1))


def test_students_interval() -> None:
    interval = t_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / 3**0.5
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2.0, 2 - half, 2 + half))
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    wider = t_interval(values, confidence=0.9)
    assert (wider.low, wider.high) == pytest.approx(expected)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [t_interval(rng.normal(0.7, 0.1, 3)) for _ in range(2000)]
    assert np.mean([interval.low <= 0.7 <= interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.015)


def test_compared_arms_have_equally_many_images(data: UtilityData) -> None:
    real, synthetic, mixed = (draw_arm(arm, data, 3) for arm in ("real", "synthetic", "mixed"))
    assert len(real) == len(synthetic) == len(mixed) == 300
    assert len(draw_arm("added", data, 3)) == 600
    real_films = {film.tobytes() for film in data.real.images}
    assert [sum(film.tobytes() in real_films for film in arm.images) for arm in (real, synthetic, mixed)] == [
        300,
        0,
        150,
    ]
    assert real.patients is not None
    assert mixed.patients is None


def test_a_seed_draws_other_films(data: UtilityData) -> None:
    first, again, other = (draw_arm("synthetic", data, seed).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_worthless_films_are_found_to_be_worthless(utility: Utility) -> None:
    means = {arm: utility.interval(arm, "auc").mean for arm in ("real", "mixed", "synthetic")}
    assert means["real"] > means["mixed"] > means["synthetic"], means
    assert means["real"] > 0.75  # in six epochs; test_classifiers.py shows what the default ones give
    assert abs(means["synthetic"] - 0.5) < 0.12
    assert utility.gain("synthetic", "auc").mean == pytest.approx(means["synthetic"] - means["real"])
    assert utility.gain("real", "f1").mean == 0


def test_reported_numbers_are_finite_and_named(utility: Utility, data: UtilityData) -> None:
    values = utility.as_dict()
    assert all(type(value) is float and np.isfinite(value) for value in values.values())
    assert values["utility_num_images/mixed"] == 300
    for score in CLASSIFIER_SCORES:
        mean = np.mean([values[f"utility_{score}/real/{name}"] for name in data.real.conditions])
        assert values[f"utility_{score}/real"] == pytest.approx(mean)
        assert 0 <= values[f"utility_{score}_low/real"] <= mean <= values[f"utility_{score}_high/real"] <= 1


def test_comparisons_that_would_mislead_are_refused(data: UtilityData, phantom: PhantomFilms) -> None:
    with pytest.raises(ValueError, match="`test` must be of other patients than the training images, but got"):
        replace(data, test=phantom.train)
    with pytest.raises(ValueError, match="`synthetic` must have the conditions of `real`"):
        replace(data, synthetic=LabelledImages(data.synthetic.images, data.synthetic.labels, tuple("abcdef")))
    with pytest.raises(ValueError, match=r"`seeds` must be at least 2, each once, but got \[0\]"):
        compare_arms(data, seeds=(0,))
    with pytest.raises(ValueError, match=r"`arms` must be a known name, but got 'fake'"):
        compare_arms(data, arms=("real", "fake"))
    with pytest.raises(ValueError, match="`train` must hold images with and without"):
        compare_arms(replace(data, synthetic=data.synthetic.take([0, 1])), arms=("synthetic",))
    with pytest.raises(ValueError, match=r"`values` must be \[n\], n >= 2"):
        t_interval([0.5])
