"""Copies: planted ones are found with their pairs, fresh films are left alone, and the gate keeps its limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from phantom_films import PhantomFilms
from scipy import ndimage, stats

from analysis.features import load_extractor
from analysis.features.base import FeatureExtractor
from analysis.films.gallery import Gallery, nearest_films
from analysis.films.pairs import pairs_sheet
from analysis.studies.memorisation import (
    RULES,
    Calibration,
    MemorisationError,
    MemorisationReport,
    calibrate,
    calibration_level,
    find_copies,
    gate_share,
)

NUM_COPIES = 30
Films = NDArray[np.uint8]


def exact(films: Films, rng: np.random.Generator) -> NDArray[np.float64]:
    return films.astype(np.float64)


def noisy(films: Films, rng: np.random.Generator) -> NDArray[np.float64]:
    return films + rng.normal(0, 8, films.shape)


def moved(films: Films, rng: np.random.Generator) -> NDArray[np.float64]:
    shifts = rng.uniform(-3, 3, (len(films), 2))
    return np.stack(
        [
            ndimage.shift(film.astype(np.float64), by, order=1, mode="nearest")
            for film, by in zip(films, shifts, strict=True)
        ]
    )


def brighter(films: Films, rng: np.random.Generator) -> NDArray[np.float64]:
    return films * rng.uniform(0.85, 1.15, (len(films), 1, 1)) + rng.uniform(-15, 15, (len(films), 1, 1))


CHANGES = (exact, noisy, moved, brighter)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Galleries with fresh films first, then the copies; `sources` are the training films of the copies."""

    generated: Gallery
    train: Gallery
    held_out: Gallery
    sources: NDArray[np.int64]
    num_fresh: int


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("mini")


@pytest.fixture(scope="module")
def planted(phantom: PhantomFilms, extractor: FeatureExtractor) -> Planted:
    def gallery(films: Films, patients: tuple[str, ...] | None) -> Gallery:
        return Gallery(extractor.extract(films), films, patients)

    rng, train = np.random.default_rng(0), phantom.train.take(range(500))
    sources = np.stack([rng.permutation(500)[:NUM_COPIES] for _ in CHANGES])
    copies = [change(train.images[rows], rng) for change, rows in zip(CHANGES, sources, strict=True)]
    films = np.clip(np.concatenate(copies), 0, 255).round().astype(np.uint8)
    fresh = phantom.test
    return Planted(
        generated=gallery(np.concatenate([fresh.images, films]), None),
        train=gallery(train.images, train.patients),
        held_out=gallery(phantom.validation.images, phantom.validation.patients),
        sources=sources.reshape(-1),
        num_fresh=len(fresh),
    )


@pytest.fixture(scope="module")
def calibration(planted: Planted) -> Calibration:
    return calibrate(planted.train, planted.held_out)


@pytest.fixture(scope="module")
def report(planted: Planted, calibration: Calibration) -> MemorisationReport:
    return find_copies(planted.generated, calibration)


def test_planted_copies_are_found_and_fresh_films_left_alone(planted: Planted, report: MemorisationReport) -> None:
    shares = report.flagged[planted.num_fresh :].reshape(len(CHANGES), NUM_COPIES).mean(axis=1)
    assert shares.min() >= 0.95, shares
    assert report.flagged[: planted.num_fresh].mean() <= 0.05


def test_pairs_name_the_copied_films(planted: Planted, report: MemorisationReport) -> None:
    pairs = {pair.generated: pair.train for pair in report.copies if pair.generated >= planted.num_fresh}
    right = [pairs.get(planted.num_fresh + i) == source for i, source in enumerate(planted.sources)]
    assert np.mean(right) >= 0.95
    scores = [report.scores[pair.generated] for pair in report.copies]
    assert scores == sorted(scores)
    exact_copies = slice(planted.num_fresh, planted.num_fresh + NUM_COPIES)
    np.testing.assert_allclose(report.scores[exact_copies], 0, atol=0.01)
    assert report.copies[0].ratio == pytest.approx(0, abs=1e-2)


def test_exact_copies_are_found_by_features_alone(planted: Planted) -> None:
    features = [Gallery(gallery.features) for gallery in (planted.generated, planted.train)]
    held_out = Gallery(planted.held_out.features, patients=planted.held_out.patients)
    report = find_copies(features[0], calibrate(features[1], held_out))
    assert set(report.ratios) == {"features"}
    assert report.flagged[planted.num_fresh :][:NUM_COPIES].all()


def test_both_ratios_are_reported_and_pixels_decide(report: MemorisationReport) -> None:
    assert set(report.ratios) == {"features", "pixels"}
    assert report.deciding == ("pixels",)
    assert {pair.space for pair in report.copies} == {"pixels"}


def test_one_space_is_enough_for_either(planted: Planted) -> None:
    # Of 84 patients nothing but the lowest score is surer, and in features that lies far below the others.
    calibration = calibrate(planted.train, planted.held_out, rule="either", confidence=0.5)
    either = find_copies(planted.generated, calibration)
    assert either.flagged[planted.num_fresh :].mean() >= 0.95
    assert {pair.space for pair in either.copies} == {"features", "pixels"}


def test_pixels_confirm(planted: Planted, report: MemorisationReport) -> None:
    both = find_copies(planted.generated, calibrate(planted.train, planted.held_out, rule="both"))
    assert both.flagged[planted.num_fresh :][:NUM_COPIES].all()
    assert both.flagged[: planted.num_fresh].mean() <= 0.05
    np.testing.assert_array_equal(both.ratios["pixels"], report.ratios["pixels"])


def test_a_generator_that_only_copies_has_a_low_ratio(planted: Planted, report: MemorisationReport) -> None:
    fresh, copied = np.split(report.ratios["pixels"], [planted.num_fresh])
    assert np.median(copied) < 0.5 < np.median(fresh)


def test_reported_numbers_are_finite_and_named(report: MemorisationReport) -> None:
    values = report.as_dict()
    assert values["memorisation_share"] == report.share == len(report.copies) / len(report.scores)
    assert all(type(value) is float and np.isfinite(value) for value in values.values())


def test_the_nearest_is_that_of_all_distances() -> None:
    rng = np.random.default_rng(0)
    queries, references = Gallery(rng.normal(size=(300, 5))), Gallery(rng.normal(size=(40, 5)))
    a, b = (g.features / np.linalg.norm(g.features, axis=1, keepdims=True) for g in (queries, references))
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    neighbours = nearest_films(queries, references, "features")
    np.testing.assert_allclose(neighbours.distances, distances.min(axis=1), atol=1e-7)
    np.testing.assert_array_equal(neighbours.rows, distances.argmin(axis=1))


def test_pixels_are_compared_after_the_best_shift() -> None:
    large = np.random.default_rng(0).integers(0, 256, (3, 80, 80), dtype=np.uint8)
    here, there = large[:, 8:72, 8:72], large[:, 5:69, 12:76]
    ones = np.ones((3, 1))
    neighbours = nearest_films(
        Gallery(ones, np.ascontiguousarray(here)), Gallery(ones, np.ascontiguousarray(there)), "pixels"
    )
    np.testing.assert_allclose(neighbours.distances, 0, atol=2e-3)
    np.testing.assert_array_equal(neighbours.rows, [0, 1, 2])


def test_a_film_is_not_compared_with_its_own_patient() -> None:
    gallery = Gallery(np.array([[1.0, 0], [1, 0.01], [0, 1]]), patients=("a", "a", "b"))
    np.testing.assert_array_equal(nearest_films(gallery, gallery, "features", other_patients=True).rows[:2], [2, 2])
    assert nearest_films(gallery, gallery, "features", other_patients=True).rows[2] == 1


def test_the_level_is_the_largest_that_is_sure() -> None:
    assert calibration_level(59, 0.05, 0.95) == 1 / 59
    for num_patients in (59, 92, 93, 200, 1000):
        rank = round(calibration_level(num_patients, 0.05, 0.95) * num_patients)
        assert stats.beta.cdf(0.05, rank, num_patients - rank + 1) >= 0.95
        assert stats.beta.cdf(0.05, rank + 1, num_patients - rank) < 0.95
    with pytest.raises(
        ValueError, match=r"`held_out` must be of at least 59 patients for 0.05 false alarms, but got 58"
    ):
        calibration_level(58, 0.05, 0.95)


def film_sets(rng: np.random.Generator, *counts: int) -> list[Gallery]:
    """Films of so many patients a set: those of one resemble each other, and few patients have most of the films."""
    galleries = []
    for count in counts:
        of_each = np.repeat(np.arange(count), rng.geometric(1 / rng.integers(1, 12, count)))
        features = 4 + rng.normal(size=(count, 6))[of_each] + 0.05 * rng.normal(size=(len(of_each), 6))
        galleries.append(Gallery(features, patients=tuple(f"{len(galleries)}-{patient}" for patient in of_each)))
    return galleries


@pytest.mark.slow
def test_the_confidence_holds_though_films_of_a_patient_resemble_each_other() -> None:
    rng, shares = np.random.default_rng(0), []
    for _ in range(200):
        train, held_out, fresh = film_sets(rng, 60, 60, 200)
        shares.append(find_copies(fresh, calibrate(train, held_out)).share)
    exceeded = np.mean(np.array(shares) > 0.05)
    assert stats.binomtest(int(exceeded * 200), 200, 0.05, alternative="greater").pvalue > 0.01, exceeded
    assert np.mean(shares) > 0.002  # and not by flagging nothing


def test_the_control_is_the_same_with_both_sets_exchanged() -> None:
    train, held_out, fresh = film_sets(np.random.default_rng(1), 70, 70, 200)
    there, back = calibrate(train, held_out), calibrate(held_out, train)
    assert there.exchanged.threshold == back.limit.threshold and back.exchanged.threshold == there.limit.threshold
    first, second = find_copies(fresh, there), find_copies(fresh, back)
    assert (first.share, first.exchanged_share) == (second.exchanged_share, second.share)
    copied = find_copies(held_out, there)  # of films that were not trained on
    assert (copied.share, copied.exchanged_share) == (0, 1)


def test_the_control_draws_as_many_training_patients_as_are_held_out(
    planted: Planted, calibration: Calibration
) -> None:
    some, held_out = calibration.exchanged.far, planted.held_out
    assert len(set(some.groups())) == len(set(held_out.groups())) < len(set(planted.train.groups()))
    assert set(some.groups()) <= set(planted.train.groups()) and some.images is not None
    assert calibration.exchanged.near is held_out


def test_the_gate_keeps_its_limit(report: MemorisationReport) -> None:
    counts = {"num_copies": len(report.copies), "num_films": len(report.scores)}
    gate_share(report.share, report.share, **counts)
    with pytest.raises(MemorisationError, match=r"`memorisation share` must be at most 0.1, but got 0\.\d+: .* raise"):
        gate_share(report.share, 0.1, **counts)
    with pytest.raises(ValueError, match=r"`limit` must be in \[0, 1\], but got 5"):
        gate_share(report.share, 5, **counts)


def test_pairs_stand_side_by_side(planted: Planted, report: MemorisationReport) -> None:
    assert planted.generated.images is not None
    assert planted.train.images is not None
    shown = report.copies[:3]
    left, right = np.array([pair.generated for pair in shown]), np.array([pair.train for pair in shown])
    page = pairs_sheet(planted.generated.images[left], planted.train.images[right], shown, side_px=64)
    assert page.size == (2 * 64 + 3 * 4, 3 * (64 + 14 + 4) + 4)
    pixels = np.asarray(page.convert("L"))
    for row, top in enumerate((18, 18 + 82, 18 + 164)):
        np.testing.assert_array_equal(pixels[top : top + 64, 4:68], planted.generated.images[left[row]])
        np.testing.assert_array_equal(pixels[top : top + 64, 72:136], planted.train.images[right[row]])
    with pytest.raises(ValueError, match="`copies` must hold a pair to show, but got 0"):
        pairs_sheet(planted.generated.images, planted.train.images, [])
    with pytest.raises(ValueError, match=r"`generated` and `train` must be 3 films, one a pair, but got \(3, 500\)"):
        pairs_sheet(planted.generated.images[left], planted.train.images, shown)


def test_sets_that_cannot_be_compared_are_refused(
    planted: Planted, phantom: PhantomFilms, calibration: Calibration
) -> None:
    with pytest.raises(ValueError, match="`held_out` must be of other patients than the training films, but got"):
        calibrate(planted.train, planted.train)
    with pytest.raises(ValueError, match="`train` must be of at least 2 patients, but got 1"):
        calibrate(Gallery(np.ones((2, 3)), patients=("a", "a")), Gallery(np.ones((90, 3))))
    narrow = Gallery(np.ones((5, 3)))
    with pytest.raises(ValueError, match="`features` must be of one extractor"):
        find_copies(narrow, calibrate(planted.train, planted.held_out, rule="features"))
    with pytest.raises(ValueError, match="`images` must be given to compare pixels"):
        find_copies(Gallery(planted.generated.features), calibration)
    with pytest.raises(ValueError, match=f"`rule` must be a known name, but got 'any'.*: {', '.join(sorted(RULES))}"):
        find_copies(planted.generated, calibrate(planted.train, planted.held_out, rule="any"))
    with pytest.raises(ValueError, match=r"`features` must not be zero, but got 1 all-zero rows, first in row \[1\]"):
        Gallery(np.array([[1.0], [0.0]]))
    with pytest.raises(ValueError, match="`features` must be finite, but got NaN"):
        Gallery(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match="`images` must be 2, one a row of features, but got 3"):
        Gallery(np.ones((2, 4)), phantom.test.images[:3])
