"""What an autoencoder keeps: contrast-to-noise in closed form, and phantom films that are blurred more and more."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from phantom_films import PhantomFilms
from scipy import ndimage

from analysis.studies.classifiers import ImageClassifier
from analysis.studies.decisions import Scored, choose_thresholds
from analysis.studies.reconstruction import (
    ROUNDING_NOISE,
    Mark,
    as_values,
    classifier_agreement,
    region_contrast,
    region_visibility,
)

FINDINGS = {"Edema", "Lung Opacity", "Pneumothorax", "Pleural Effusion", "Cardiomegaly"}


def square(inside: int, *, noise: int = 0, side_px: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A square of one grey level on 100, whose pixels alternate by the noise."""
    mask = np.zeros((side_px, side_px), np.bool_)
    mask[20:32, 24:36] = True
    checks = np.indices((side_px, side_px)).sum(axis=0) % 2 * 2 - 1
    film = (100 + noise * checks).astype(np.uint8)
    film[mask] = inside
    return film, mask


def blurred(films: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    return np.stack([ndimage.gaussian_filter(film.astype(np.float64), sigma_px) for film in films]).astype(np.uint8)


@pytest.fixture(scope="module")
def marks(phantom: PhantomFilms) -> list[Mark]:
    """Where the findings of the test films lie."""
    truth = phantom.source.finding_masks("test")
    return [Mark(row, name, mask) for row, masks in enumerate(truth) for name, mask in masks.items()]


@pytest.mark.parametrize(
    ("inside", "noise", "contrast", "deviation"), [(130, 5, 30, 5), (60, 2, -40, 2), (130, 0, 30, None)]
)
def test_contrast_of_a_square(inside: int, noise: int, contrast: float, deviation: float | None) -> None:
    stands_out = region_contrast(*square(inside, noise=noise))
    assert stands_out[0] == pytest.approx(contrast, abs=0.1)
    assert stands_out[1] == pytest.approx(ROUNDING_NOISE if deviation is None else deviation, rel=0.01)


def test_visibility_in_closed_form() -> None:
    bright, mask = square(130, noise=5)
    weak, _ = square(115, noise=5)
    inverted, _ = square(90, noise=5)
    films = np.stack([bright, bright])
    visibilities = region_visibility(
        films, np.stack([weak, inverted]), [Mark(0, "Edema", mask), Mark(1, "Opacity", mask)]
    )
    assert visibilities["Edema"].cnr_before == pytest.approx(6, rel=0.02)
    assert visibilities["Edema"].cnr_kept == pytest.approx(0.5, rel=0.02)
    assert visibilities["Opacity"].contrast_kept == pytest.approx(-1 / 3, rel=0.03)
    assert visibilities["Opacity"].cnr_after < 0


def test_a_brighter_and_a_stretched_film_keep_their_visibility() -> None:
    film, mask = square(130, noise=5)
    for changed, contrast_kept in ((film + 40, 1.0), (film // 2 * 2 - 60, 1.0), ((film - 80) * 2, 2.0)):
        visibility = region_visibility(film[None], changed.astype(np.uint8)[None], [Mark(0, "Edema", mask)])["Edema"]
        assert visibility.cnr_kept == pytest.approx(1, rel=0.06)
        assert visibility.contrast_kept == pytest.approx(contrast_kept, rel=0.06)


def test_films_that_are_not_changed_keep_everything(phantom: PhantomFilms, marks: list[Mark]) -> None:
    films = phantom.test.images
    visibilities = region_visibility(films, films, marks)
    assert set(visibilities) == FINDINGS
    assert all(visibility.cnr_kept == visibility.contrast_kept == 1 for visibility in visibilities.values())


def test_blurring_costs_contrast(phantom: PhantomFilms, marks: list[Mark]) -> None:
    films = phantom.test.images
    by_blur = [region_visibility(films, blurred(films, sigma), marks) for sigma in (1, 3, 6)]
    for condition in ("Pneumothorax", "Pleural Effusion", "Lung Opacity"):
        kept = [visibility[condition].contrast_kept for visibility in by_blur]
        assert 1 > kept[0] > kept[1] > kept[2], (condition, kept)


def test_boxes_cover_the_pixels_whose_centres_they_hold() -> None:
    mask = Mark.of_box(0, "Edema", (24, 20, 12, 12), 64).mask
    np.testing.assert_array_equal(mask, square(130)[1])
    with pytest.raises(ValueError, match="`box` must hold a pixel of a film of 64 px"):
        Mark.of_box(0, "Edema", (70, 20, 12, 12), 64)


def test_agreement_by_hand() -> None:
    labels = np.array([[1], [1], [0], [0]])
    before = Scored(np.array([[0.9], [0.6], [0.4], [0.1]]), labels, ("Edema",))
    after = Scored(np.array([[0.8], [0.3], [0.4], [0.7]]), labels, ("Edema",))
    agreement = classifier_agreement(before, after, {"Edema": 0.5})["Edema"]
    assert (agreement.num_films, agreement.agreement, agreement.auc_before, agreement.auc_after) == (4, 0.5, 1.0, 0.5)
    assert agreement.auc_change == -0.5
    assert agreement.probability_change == pytest.approx((0.1 + 0.3 + 0 + 0.6) / 4)


def test_a_classifier_agrees_less_the_more_films_are_blurred(
    classifier: ImageClassifier, phantom: PhantomFilms
) -> None:
    thresholds = choose_thresholds(classifier.score(phantom.validation))
    before = classifier.score(phantom.test)
    shares = []
    for sigma in (0.0, 1.0, 3.0):
        probabilities = classifier.predict(blurred(phantom.test.images, sigma))
        agreements = classifier_agreement(before, Scored(probabilities, before.labels, before.conditions), thresholds)
        shares.append(as_values(agreements)["vae_agreement"])
    assert shares[0] == 1 > shares[1] > shares[2]


def test_reported_numbers_are_finite_and_named(phantom: PhantomFilms, marks: list[Mark]) -> None:
    films = phantom.test.images
    values = as_values(region_visibility(films, blurred(films, 1), marks))
    assert values["vae_cnr_kept"] == pytest.approx(np.mean([values[f"vae_cnr_kept/{name}"] for name in FINDINGS]))
    assert "vae_num_marks" not in values
    assert all(type(value) is float and np.isfinite(value) for value in values.values())


def test_what_cannot_be_compared_is_refused() -> None:
    film, mask = square(130)
    films = film[None]
    with pytest.raises(ValueError, match=r"`after` must be \[1, 64, 64\] like `before`, but got \[2, 64, 64\]"):
        region_visibility(films, np.stack([film, film]), [Mark(0, "Edema", mask)])
    with pytest.raises(ValueError, match="`marks` must hold at least one region, but got none"):
        region_visibility(films, films, [])
    with pytest.raises(ValueError, match=r"`film` of a mark must be a row in 0..0, but got 1"):
        region_visibility(films, films, [Mark(1, "Edema", mask)])
    with pytest.raises(ValueError, match="`mask` must leave pixels in and around the region"):
        region_visibility(films, films, [Mark(0, "Edema", np.ones_like(mask))])
    with pytest.raises(ValueError, match=r"`mask` must be bool\[64, 64\]"):
        region_visibility(films, films, [Mark(0, "Edema", mask[:32])])
    with pytest.raises(ValueError, match="`marks` of 'Edema' must show some contrast"):
        region_visibility(square(100)[0][None], films, [Mark(0, "Edema", mask)])
    here = Scored(np.array([[0.9], [0.1]]), np.array([[1], [0]]), ("Edema",))
    there = Scored(np.array([[0.9], [0.1]]), np.array([[0], [1]]), ("Edema",))
    with pytest.raises(ValueError, match="`after` must have the conditions and labels of `before`"):
        classifier_agreement(here, there, {"Edema": 0.5})
