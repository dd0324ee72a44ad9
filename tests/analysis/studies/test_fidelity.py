"""Figures of fidelity: the plain metrics with intervals, and what a set is too small for."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.metrics import METRICS, LabelledFeatures, bootstrap_interval, frechet_distance, kernel_distance
from analysis.studies.fidelity import Figure, fidelity_figures
from analysis.studies.memorisation import attainable_confidence, calibration_level

PATIENTS = [f"p{row // 2}" if row < 6 else f"q{row}" for row in range(45)]
LABELS = [("Edema",)] * 40 + [("Edema", "Effusion")] * 3 + [("Effusion",)] * 2


@pytest.fixture(scope="module")
def sets() -> tuple[LabelledFeatures, LabelledFeatures]:
    rng = np.random.default_rng(0)
    generated, reference = rng.normal(0.3, 1, (45, 8)), rng.normal(0, 1, (45, 8))
    return LabelledFeatures(generated, LABELS), LabelledFeatures(reference, LABELS)


@pytest.fixture(scope="module")
def figures(sets: tuple[LabelledFeatures, LabelledFeatures]) -> dict[tuple[str, str | None], Figure]:
    listed = fidelity_figures(
        *sets,
        patients=PATIENTS,
        extractor="mini",
        weights_hash="abc",
        conditions=("Edema", "Effusion"),
        num_resamples=20,
    )
    return {(figure.measurement.metric, figure.measurement.condition): figure for figure in listed}


def test_values_are_the_metrics_own(
    figures: dict[tuple[str, str | None], Figure], sets: tuple[LabelledFeatures, LabelledFeatures]
) -> None:
    generated, reference = sets
    assert figures["fid", None].measurement.value == pytest.approx(
        frechet_distance(generated.of(None), reference.of(None))
    )
    kid = kernel_distance(generated.of("Effusion"), reference.of("Effusion"))
    assert figures["kid", "Effusion"].measurement.value == pytest.approx(kid)
    assert figures["fid", "Effusion"].measurement.num_generated == 5
    assert figures["fid", "Edema"].measurement.weights_hash == "abc"


def test_intervals_are_the_bootstraps_where_halves_are_large_enough(
    figures: dict[tuple[str, str | None], Figure], sets: tuple[LabelledFeatures, LabelledFeatures]
) -> None:
    due = bootstrap_interval(
        frechet_distance, sets[0].of("Edema"), sets[1].of("Edema"), groups=PATIENTS[:43], num_resamples=20
    )
    figure = figures["fid", "Edema"]
    assert (figure.low, figure.high) == pytest.approx((due.low, due.high))
    assert figures["kid", "Effusion"].low is None
    assert set(figure.named()) == {"fid_mini/Edema", "fid_mini_low/Edema", "fid_mini_high/Edema"}
    assert set(figures["kid", "Effusion"].named()) == {"kid_mini/Effusion"}


def test_the_extrapolated_distance_stands_where_there_are_films_enough(
    figures: dict[tuple[str, str | None], Figure],
) -> None:
    assert {condition for metric, condition in figures if metric == "fid_infinite"} == {None, "Edema"}
    line = figures["fid_infinite", None]
    assert line.low is not None and line.low < line.measurement.value < figures["fid", None].measurement.value


def test_figures_without_an_interval_that_covers_have_none(
    figures: dict[tuple[str, str | None], Figure], sets: tuple[LabelledFeatures, LabelledFeatures]
) -> None:
    with_one = {
        metric for (metric, condition), figure in figures.items() if condition is None and figure.low is not None
    }
    spread = {name for name, metric in METRICS.items() if metric.spread is not None}
    assert with_one == spread | {"fid_infinite"} and not {"density", "coverage"} & with_one
    alike = LabelledFeatures(sets[1].features, LABELS)
    same = fidelity_figures(
        alike, sets[1], patients=PATIENTS, extractor="mini", weights_hash="abc", conditions=(), num_resamples=4
    )
    assert {figure.measurement.metric: figure.low for figure in same}["recall"] is None
    few = fidelity_figures(
        *sets, patients=["p", "q", "r"] * 15, extractor="mini", weights_hash="abc", conditions=(), num_resamples=4
    )
    assert {figure.measurement.metric for figure in few} >= {"fid", "kid"} and all(figure.low is None for figure in few)
    with pytest.raises(ValueError, match="`patients` must name one for each of 45 real films, but got 44"):
        fidelity_figures(*sets, patients=PATIENTS[1:], extractor="mini", weights_hash="abc", conditions=())


@pytest.mark.parametrize("num_patients", [2, 9, 18, 58, 59, 200])
def test_the_confidence_is_what_the_patients_allow(num_patients: int) -> None:
    confidence = attainable_confidence(num_patients, 0.05)
    assert confidence == pytest.approx(min(0.95, 1 - 0.95**num_patients), abs=1e-5)
    assert 0 < calibration_level(num_patients, 0.05, confidence) <= 0.5
    if num_patients < 59:
        with pytest.raises(ValueError, match="`held_out` must be of at least"):
            calibration_level(num_patients, 0.05, confidence + 0.01)
