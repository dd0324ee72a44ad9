"""The phantom: deterministic, split by patient, and each finding where its anatomy is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainables.datasets.base import CONDITIONS, SPLITS
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.phantom.canvas import Canvas, spline
from trainables.datasets.phantom.film import attenuation, draw_film
from trainables.datasets.phantom.findings import FINDINGS
from trainables.datasets.phantom.patients import Exam, draw_exams, draw_patient
from trainables.datasets.phantom.shape import chest_map, shape_of

NUM_PATIENTS = 12


@pytest.fixture(scope="module")
def source() -> PhantomSource:
    return PhantomSource(num_patients=60, seed=7)


def exams_with(*findings: str, side: int = 1, severity: float = 0.6) -> list[Exam]:
    """One upright film of each of several patients, all with these findings on the same side."""
    exams = [draw_exams(draw_patient(3, number))[0] for number in range(NUM_PATIENTS)]
    return [
        replace(
            exam,
            patient=replace(exam.patient, side=side),
            findings=findings,
            severities=(severity,) * len(CONDITIONS),
            view="PA",
        )
        for exam in exams
    ]


def mean_shadow(exams: list[Exam]) -> NDArray[np.float32]:
    """Mean attenuation in patient coordinates: no rotation, shift, exposure or grain."""
    canvas = Canvas(side_px=128)
    return np.mean([attenuation(canvas, exam) for exam in exams], axis=0)


def region(shadow: NDArray[np.float32], x: tuple[float, float], y: tuple[float, float]) -> float:
    """Mean over a rectangle in patient coordinates."""
    columns, rows = (slice(*(int((edge + 1) * 64) for edge in edges)) for edges in (x, y))
    return float(shadow[rows, columns].mean())


HEALTHY = mean_shadow(exams_with("No Finding"))


def test_effusion_fills_the_costophrenic_angle_of_its_side_only() -> None:
    change = mean_shadow(exams_with("Pleural Effusion", side=1)) - HEALTHY
    assert region(change, (0.45, 0.58), (0.28, 0.42)) > 0.15
    assert abs(region(change, (-0.58, -0.45), (0.28, 0.42))) < 0.005
    assert abs(region(change, (0.2, 0.5), (-0.6, -0.4))) < 0.005


def test_effusion_climbs_along_the_chest_wall() -> None:
    change = mean_shadow(exams_with("Pleural Effusion", side=-1)) - HEALTHY
    assert region(change, (-0.56, -0.48), (0.12, 0.2)) > 2 * region(change, (-0.38, -0.3), (0.12, 0.2))


def test_pneumothorax_darkens_the_rim_and_shrinks_the_lung() -> None:
    change = mean_shadow(exams_with("Pneumothorax", side=-1)) - HEALTHY
    assert region(change, (-0.5, -0.44), (-0.35, -0.15)) < -0.05
    assert region(change, (-0.25, -0.2), (-0.2, 0.1)) > 0.0
    assert abs(region(change, (0.44, 0.5), (-0.35, -0.15))) < 0.005


def test_no_vessel_lies_in_a_pneumothorax() -> None:
    canvas = Canvas(side_px=256)
    exam = exams_with("Pneumothorax", side=-1, severity=0.9)[0]
    rim = (slice(96, 112), slice(72, 78))
    with_it, without = attenuation(canvas, exam)[rim], attenuation(canvas, replace(exam, findings=("No Finding",)))[rim]
    assert with_it.mean() < without.mean() - 0.05


def test_edema_is_on_both_sides_around_the_hila() -> None:
    change = mean_shadow(exams_with("Edema")) - HEALTHY
    right, left = region(change, (-0.35, -0.2), (-0.15, 0.15)), region(change, (0.2, 0.35), (-0.15, 0.15))
    assert min(left, right) > 0.08
    assert left == pytest.approx(right, rel=0.35)
    assert region(change, (-0.45, -0.3), (-0.6, -0.45)) < right / 2


def test_opacity_is_a_patch_inside_the_lung_of_its_side() -> None:
    exams = exams_with("Lung Opacity", side=-1)
    for exam in exams[:4]:
        canvas = Canvas(side_px=128)
        change = attenuation(canvas, exam) - attenuation(canvas, replace(exam, findings=("No Finding",)))
        thorax = chest_map(canvas, shape_of(exam)).thorax
        assert change.max() > 0.1
        assert np.abs(change[thorax == 0]).max() < 1e-6
        assert 0.01 < (change > 0.05).sum() / (thorax > 0.5).sum() < 0.6


def test_cardiomegaly_is_a_wide_heart() -> None:
    canvas = Canvas(side_px=256)
    for findings, low, high in ((("No Finding",), 0.33, 0.50), (("Cardiomegaly",), 0.54, 0.75)):
        for exam in exams_with(*findings):
            shape = shape_of(exam)
            heart = (chest_map(canvas, shape).heart > 0.5).any(axis=0)
            ratio = heart.sum() / 128 / (2 * shape.half_width)
            assert low < ratio < high


def test_the_heart_lies_on_the_right_of_the_picture() -> None:
    canvas = Canvas(side_px=128)
    for exam in exams_with("No Finding"):
        heart = chest_map(canvas, shape_of(exam)).heart
        assert float((heart * canvas.x).sum() / heart.sum()) > 0.03


def test_findings_leave_everything_outside_the_chest_alone() -> None:
    canvas = Canvas(side_px=128)
    exam = exams_with("No Finding")[0]
    outside = chest_map(canvas, shape_of(exam)).thorax == 0
    for condition in FINDINGS:
        if condition != "Pneumothorax":  # it may push the heart
            diseased = attenuation(canvas, replace(exam, findings=(condition,)))
            np.testing.assert_allclose(diseased[outside], attenuation(canvas, exam)[outside], atol=1e-6)


def test_portable_films_have_larger_hearts_and_higher_diaphragms() -> None:
    upright = exams_with("No Finding")
    for exam in upright:
        portable = shape_of(replace(exam, view="AP"))
        assert portable.heart_ratio > shape_of(exam).heart_ratio
        assert portable.dome[0] < shape_of(exam).dome[0]


def test_lines_drawn_at_once_are_as_far_from_every_pixel_as_each_alone() -> None:
    """In patient coordinates and over the whole film, rather than in windows of the film; one lies beside it."""
    canvas = Canvas(side_px=64, rotation_rad=0.2, zoom=0.9, shift=(0.05, -0.02))
    lines = [
        ([(-0.5, -0.3), (0.1, 0.3), (0.5, 0.1)], [0.02, 0.06, 0.01]),
        ([(0.6, 0.7), (1.3, 1.2)], [0.1, 0.1]),
        ([(2.0, 2.0), (2.5, 2.0)], [0.1, 0.1]),
    ]
    expected = canvas.blank()
    for points, radii in lines:
        for (start, end), (first, last) in zip(pairwise(points), pairwise(radii), strict=True):
            along = np.array(end) - start
            away = np.stack([canvas.x - start[0], canvas.y - start[1]], axis=-1)
            share = np.clip(away @ along / (along @ along), 0, 1)
            distance = np.linalg.norm(away - share[..., None] * along, axis=-1)
            ramp = np.clip(0.5 - (distance - first - share * (last - first)) / 0.04, 0, 1)
            expected = np.maximum(expected, ramp**2 * (3 - 2 * ramp))
    drawn = canvas.blank()
    canvas.strokes(drawn, lines, 0.02)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    assert 0.02 < (drawn == 1).mean() < 0.2


@pytest.mark.slow
def test_two_sources_give_the_same_films(source: PhantomSource) -> None:
    again = PhantomSource(num_patients=60, seed=7)
    for first, second in zip(source.samples("test"), again.samples("test"), strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        assert (first.prompt, first.image_id, first.age) == (second.prompt, second.image_id, second.age)
    assert source.fingerprint() == again.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 8}, {"num_patients": 61}, {"resolution_px": 72}, {"with_view": True}])
def test_the_fingerprint_changes_with_every_setting(source: PhantomSource, change: dict[str, int]) -> None:
    settings_ = {"num_patients": 60, "seed": 7, **change}
    assert PhantomSource(**settings_).fingerprint() != source.fingerprint()  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(num_patients=st.integers(10, 120), seed=st.integers(0, 2**31))
def test_no_patient_is_in_two_splits(num_patients: int, seed: int) -> None:
    phantom = PhantomSource(num_patients=num_patients, seed=seed)
    numbers = [patient.number for split in SPLITS for patient in phantom._patients[split]]
    assert sorted(numbers) == list(range(num_patients))


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_split_holds_every_condition(seed: int) -> None:
    phantom = PhantomSource(num_patients=150, seed=seed)
    for split in SPLITS:
        exams = [exam for patient in phantom._patients[split] for exam in draw_exams(patient)]
        assert {finding for exam in exams for finding in exam.findings} == set(CONDITIONS)


def test_prevalences_are_balanced() -> None:
    exams = [exam for number in range(1500) for exam in draw_exams(draw_patient(1, number))]
    counts = Counter(finding for exam in exams for finding in exam.findings)
    for condition in CONDITIONS:
        assert 0.15 < counts[condition] / len(exams) < 0.25
    assert sum(len(exam.findings) > 1 for exam in exams) > 0.15 * len(exams)
    assert all(exam.findings == ("No Finding",) for exam in exams if "No Finding" in exam.findings)


@pytest.mark.slow
def test_films_of_one_patient_resemble_each_other_more_than_those_of_two() -> None:
    exams = [exam for number in range(40) for exam in draw_exams(draw_patient(2, number))[:2]]
    films = {exam.image_id: draw_film(exam, 64).astype(float) for exam in exams}
    pairs = list(pairwise(exams))
    same = [np.abs(films[a.image_id] - films[b.image_id]).mean() for a, b in pairs if a.patient is b.patient]
    other = [np.abs(films[a.image_id] - films[b.image_id]).mean() for a, b in pairs if a.patient is not b.patient]
    assert np.mean(same) < 0.8 * np.mean(other)


def test_the_anatomy_is_the_same_at_another_resolution() -> None:
    exam = draw_exams(draw_patient(4, 1))[0]
    small, large = draw_film(exam, 64), draw_film(exam, 128)
    halved = large.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.99


def test_films_use_the_grey_scale(source: PhantomSource) -> None:
    films = np.stack([sample.image for sample in source.samples("validation")])
    assert films.dtype == np.uint8
    assert (films.std(axis=(1, 2)) > 20).all()
    assert 90 < films.mean() < 170


def test_points_map_to_the_film_and_back() -> None:
    canvas = Canvas(side_px=64, rotation_rad=0.1, zoom=1.1, shift=(0.05, -0.03))
    row, column = 20, 45
    point = (float(canvas.x[row, column]), float(canvas.y[row, column]))
    assert canvas.to_film(point) == pytest.approx((canvas.film[column], canvas.film[row]), abs=1e-6)


def test_the_spline_keeps_constants_and_ramps() -> None:
    np.testing.assert_allclose(spline(np.full((9, 9), 2.5, np.float32), 48), 2.5, rtol=1e-6)
    ramp = np.repeat(np.arange(-1, 8, dtype=np.float32)[None], 9, axis=0)
    np.testing.assert_allclose(spline(ramp, 48)[0], (np.arange(48) + 0.5) / 48 * 6, atol=1e-5)


def test_too_few_patients_and_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="`num_patients` must be at least 10, but got 4"):
        PhantomSource(num_patients=4)
    with pytest.raises(ValueError, match="`resolution_px` must be a multiple of 8"):
        PhantomSource(num_patients=60, resolution_px=50)
    with pytest.raises(ValueError, match="`split` must be one of"):
        list(PhantomSource(num_patients=60).samples("val"))
