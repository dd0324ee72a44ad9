"""Measurements: comparing what compares, refusing the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis.metrics import METRICS, LabelledFeatures, Measurement, evaluate, measurements

ONE = Measurement(metric="fid", value=3.0, num_generated=100, num_reference=90, extractor="xrv", weights_hash="ab12")


def test_alike_compare() -> None:
    lower = dataclasses.replace(ONE, value=2.5)
    assert lower < ONE and not lower > ONE and max(lower, ONE) is ONE
    assert ONE - lower == 0.5
    assert dataclasses.replace(ONE, condition="Edema") - lower == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("metric", "kid"), ("num_generated", 101), ("num_reference", 91), ("extractor", "mini"), ("weights_hash", "cd34")],
)
def test_unlike_are_refused(name: str, value: object) -> None:
    other = dataclasses.replace(ONE, **{name: value})
    message = rf"to be compared, but got {name} {getattr(ONE, name)} against {name} {value}\. "
    with pytest.raises(ValueError, match=message):
        min(other, ONE)
    with pytest.raises(ValueError, match=message):
        max(other, ONE)
    with pytest.raises(ValueError, match=message):
        ONE - other


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="`value` must be finite, but got nan for fid"):
        dataclasses.replace(ONE, value=float("nan"))


def test_an_evaluation_becomes_measurements_with_their_own_numbers_of_images() -> None:
    rng = np.random.default_rng(0)
    kinds = ["Edema"] * 8 + ["No Finding"] * 7
    generated = LabelledFeatures(rng.standard_normal((15, 4)), kinds)
    real = LabelledFeatures(rng.standard_normal((15, 4)), kinds[::-1])
    results = evaluate(METRICS.values(), generated, real, extractor="mini", conditions=("Edema", "No Finding"))
    by_metric = {
        (measurement.metric, measurement.condition): measurement
        for measurement in measurements(results, extractor="mini", weights_hash="ab")
    }
    assert len(by_metric) == 3 * len(METRICS)
    edema = by_metric["fid", "Edema"]
    assert (edema.value, edema.num_generated, edema.num_reference) == (results["fid_mini/Edema"], 8, 8)
    assert (by_metric["vendi", None].num_generated, by_metric["vendi", "No Finding"].num_reference) == (15, 7)
    assert {(measurement.extractor, measurement.weights_hash) for measurement in by_metric.values()} == {("mini", "ab")}
    assert measurements(results, extractor="xrv", weights_hash="ab") == ()
