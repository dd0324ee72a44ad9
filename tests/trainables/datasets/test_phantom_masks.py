"""The marked regions of the phantom: where the films differ, on the right side, and the same in every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainables.datasets.base import CONDITIONS
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.phantom.film import draw_film
from trainables.datasets.phantom.masks import bounding_box, finding_masks
from trainables.datasets.phantom.patients import Exam, draw_exams, draw_patient

SIDE_PX = 128


def exams_with(condition: str, side: int) -> list[Exam]:
    """One upright film of each of several patients with one finding."""
    exams = [draw_exams(draw_patient(3, number))[0] for number in range(8)]
    return [replace(exam, patient=replace(exam.patient, side=side), findings=(condition,), view="PA") for exam in exams]


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["Edema", "Lung Opacity", "Pleural Effusion"])
def test_films_differ_most_where_the_finding_is_marked(condition: str) -> None:
    for exam in exams_with(condition, side=1):
        mask = finding_masks(exam, SIDE_PX)[condition]
        healthy = draw_film(replace(exam, findings=("No Finding",)), SIDE_PX).astype(float)
        change = np.abs(draw_film(exam, SIDE_PX) - healthy)
        assert change[mask].mean() > 3 * change[~mask].mean()


@pytest.mark.slow
def test_free_air_is_darker_than_the_lung_was() -> None:
    for exam in exams_with("Pneumothorax", side=-1):
        mask = finding_masks(exam, SIDE_PX)["Pneumothorax"]
        healthy = draw_film(replace(exam, findings=("No Finding",)), SIDE_PX).astype(float)
        assert draw_film(exam, SIDE_PX)[mask].mean() < healthy[mask].mean() - 5


def test_the_heart_is_marked_when_it_is_enlarged() -> None:
    for exam in exams_with("Cardiomegaly", side=1):
        left, top, right, bottom = bounding_box(finding_masks(exam, SIDE_PX)["Cardiomegaly"])
        assert left < SIDE_PX // 2 < right
        assert right - left > 0.25 * SIDE_PX
        assert bottom - top > SIDE_PX // 4


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["Pneumothorax", "Pleural Effusion"])
@pytest.mark.parametrize("side", [-1, 1])
def test_one_sided_findings_are_marked_on_their_side(condition: str, side: int) -> None:
    for exam in exams_with(condition, side):
        columns = np.nonzero(finding_masks(exam, SIDE_PX)[condition])[1]
        assert side * (columns.mean() - SIDE_PX / 2) > SIDE_PX / 16


def test_another_finding_does_not_move_a_mark() -> None:
    for exam in exams_with("Lung Opacity", side=1):
        both = finding_masks(replace(exam, findings=("Lung Opacity", "Pneumothorax")), SIDE_PX)
        alone = finding_masks(replace(exam, findings=("Pneumothorax",)), SIDE_PX)
        np.testing.assert_array_equal(both["Pneumothorax"], alone["Pneumothorax"])


def test_the_marks_are_the_same_in_another_size() -> None:
    for condition in CONDITIONS:
        for exam in exams_with(condition, side=1)[:3]:
            small, large = finding_masks(exam, 64), finding_masks(exam, 128)
            assert set(small) == set(large) == {condition} - {"No Finding"}
            for name in small:
                halved = large[name].reshape(64, 2, 64, 2).mean(axis=(1, 3))
                assert np.abs(halved - small[name]).mean() < 0.05


def test_every_film_of_a_source_has_its_marks() -> None:
    source = PhantomSource(num_patients=20, seed=7)
    pairs = list(zip(source.samples("train"), source.finding_masks("train"), strict=True))
    for sample, masks in pairs:
        assert set(masks) == set(sample.conditions) - {"No Finding"}
        assert all(mask.shape == sample.image.shape and mask.any() for mask in masks.values())


def test_boxes_are_tight() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[3:7, 5:12] = True
    assert bounding_box(mask) == (5, 3, 12, 7)
    with pytest.raises(ValueError, match="`mask` must mark at least one pixel, but got none"):
        bounding_box(np.zeros((4, 4), np.bool_))
