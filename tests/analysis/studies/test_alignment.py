"""Alignment: by hand on five images, and on phantom films with right and with wrong prompts."""

from __future__ import annotations

import numpy as np
import pytest
from phantom_films import PhantomFilms

from analysis.studies.alignment import image_prompt_alignment
from analysis.studies.classifiers import ImageClassifier
from analysis.studies.decisions import Scored, choose_thresholds, decide, score_decisions

NAMES = ("Edema", "Effusion")
THRESHOLDS = {"Edema": 0.5, "Effusion": 0.2}
REAL = Scored(np.array([[0.9, 0.1], [0.4, 0.3], [0.1, 0.1]]), np.array([[1, 0], [1, 1], [0, 0]]), NAMES)


def generated(prompted: list[list[int]]) -> Scored:
    probabilities = [[0.9, 0.0], [0.9, 0.3], [0.1, 0.3], [0.1, 0.1], [0.5, 0.1]]
    return Scored(np.array(probabilities), np.array(prompted), NAMES)


def test_shares_by_hand() -> None:
    result = image_prompt_alignment(generated([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]]), REAL, THRESHOLDS)
    assert (result.generated.aligned, result.generated.exact) == (3 / 5, 2 / 5)
    edema, effusion = result.conditions["Edema"], result.conditions["Effusion"]
    assert (edema.generated.num_images, edema.generated.aligned, edema.generated.exact) == (4, 3 / 4, 2 / 4)
    assert edema.recall == 3 / 4
    assert (effusion.generated.num_images, effusion.generated.aligned, effusion.recall) == (2, 0.0, 1 / 2)
    # Of five prompts three are of edema alone, which is found, and one of both, where edema is missed.
    assert (edema.real.aligned, edema.real_recall, effusion.real_recall) == (3 / 4, 3 / 4, 1.0)
    assert (edema.classifier_auc, effusion.classifier_auc) == (1.0, 1.0)
    assert (result.real.num_images, result.real.aligned) == (2, 3 / 4)


def test_real_films_without_a_condition_flatter_nobody() -> None:
    labels = np.zeros((100, 2), int)
    labels[:10, 0], labels[10:20, 1] = 1, 1
    blind = Scored(np.zeros((100, 2)), labels, NAMES)
    result = image_prompt_alignment(Scored(np.zeros((20, 2)), labels[:20], NAMES), blind, THRESHOLDS)
    assert (result.real.aligned, result.real.exact, result.generated.aligned) == (0, 0, 0)


@pytest.mark.parametrize("repeats", [(1, 1, 1), (1, 5, 2), (7, 1, 30)])
def test_real_films_count_as_often_as_prompts_ask_for_their_combination(repeats: tuple[int, int, int]) -> None:
    kinds = np.array([[1, 0], [0, 1], [1, 1]])
    rng = np.random.default_rng(0)
    real = Scored(rng.random((60, 2)), np.concatenate([np.tile(kinds, (15, 1)), np.zeros((15, 2), int)]), NAMES)
    prompts = np.repeat(kinds, repeats, axis=0)
    result = image_prompt_alignment(Scored(rng.random((len(prompts), 2)), prompts, NAMES), real, THRESHOLDS)
    assigned = decide(real, THRESHOLDS)
    drawn = np.repeat(np.arange(60), [*np.tile(repeats, 15), *np.zeros(15, int)])  # as many of each as prompted
    aligned = (assigned | ~real.labels).all(axis=1)
    assert result.real.aligned == pytest.approx(aligned[drawn].mean())
    edema = drawn[real.labels[drawn, 0]]
    assert result.conditions["Edema"].real.aligned == pytest.approx(aligned[edema].mean())
    assert result.conditions["Edema"].real_recall == pytest.approx(assigned[edema, 0].mean())


def test_combinations_that_no_real_film_shows_leave_all_with_a_condition() -> None:
    both = Scored(np.full((4, 2), 0.9), np.ones((4, 2), int), NAMES)
    real = Scored(np.array([[0.9, 0.0], [0.1, 0.9], [0.1, 0.1], [0.1, 0.1]]), np.eye(4, 2, dtype=int), NAMES)
    result = image_prompt_alignment(both, real, THRESHOLDS)
    assert (result.real.num_images, result.real.aligned) == (2, 1.0)


def test_reported_numbers_are_finite_and_named() -> None:
    result = image_prompt_alignment(generated([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]]), REAL, THRESHOLDS)
    values = result.as_dict()
    assert values["alignment"] == result.generated.aligned
    assert values["alignment/Edema"] == 3 / 4
    assert values["classifier_auc/Effusion"] == 1.0
    assert all(type(value) is float and np.isfinite(value) for value in values.values())


def test_the_order_of_images_does_not_matter() -> None:
    prompted = [[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]]
    straight = generated(prompted)
    order = [3, 1, 4, 0, 2]
    turned = Scored(straight.probabilities[order], straight.labels[order], NAMES)
    assert image_prompt_alignment(turned, REAL, THRESHOLDS) == image_prompt_alignment(straight, REAL, THRESHOLDS)


def test_wrong_prompts_are_caught(classifier: ImageClassifier, phantom: PhantomFilms) -> None:
    real = classifier.score(phantom.test)
    thresholds = choose_thresholds(classifier.score(phantom.validation))
    half = np.arange(len(phantom.test)) % 2 == 0
    films, reference = (Scored(real.probabilities[rows], real.labels[rows], real.conditions) for rows in (half, ~half))
    right = image_prompt_alignment(films, reference, thresholds)
    prompts = np.random.default_rng(0).permutation(films.labels)
    wrong = image_prompt_alignment(Scored(films.probabilities, prompts, films.conditions), reference, thresholds)
    assert right.generated.aligned > 0.75
    assert wrong.generated.aligned < right.generated.aligned / 2
    for name in films.conditions:
        assert wrong.conditions[name].recall < right.conditions[name].recall
        assert right.conditions[name].classifier_auc == wrong.conditions[name].classifier_auc > 0.9


def test_the_auc_is_that_of_the_real_images(classifier: ImageClassifier, phantom: PhantomFilms) -> None:
    real, thresholds = classifier.score(phantom.test), choose_thresholds(classifier.score(phantom.validation))
    result = image_prompt_alignment(real, real, thresholds)
    expected = score_decisions(real, thresholds)
    assert {name: figures.classifier_auc for name, figures in result.conditions.items()} == {
        name: figures.auc for name, figures in expected.items()
    }
    assert result.generated == result.real


def test_what_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(ValueError, match="`generated` must have a condition in each prompt, but got 1 that name none"):
        image_prompt_alignment(generated([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]]), REAL, THRESHOLDS)
    with pytest.raises(ValueError, match="`generated` must hold images prompted with 'Effusion', but got none"):
        image_prompt_alignment(generated([[1, 0]] * 5), REAL, THRESHOLDS)
    single = generated([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]]).only(["Effusion"])
    with pytest.raises(ValueError, match="`generated` must be scored for the conditions of `real`"):
        image_prompt_alignment(single, REAL, THRESHOLDS)
    healthy = Scored(REAL.probabilities, np.array([[1, 0], [0, 0], [0, 0]]), NAMES)
    with pytest.raises(ValueError, match="`real` must hold images with and without 'Effusion'"):
        image_prompt_alignment(generated([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]]), healthy, THRESHOLDS)
