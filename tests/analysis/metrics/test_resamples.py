"""Values on resampled images and patients: their spread, and that they belong together from one model to another."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.metrics import METRICS, bootstrap_interval
from analysis.metrics.resamples import resampled_values

RNG = np.random.default_rng(0)
GENERATED, REFERENCE = RNG.normal(0.5, 1, (40, 3)), RNG.normal(0, 1, (30, 3))
PATIENTS = np.arange(30) // 2
SOME = [METRICS[name] for name in ("fid", "kid", "vendi", "precision", "density")]
"""Not all there are: a new metric has a fewest number of images of its own."""


@pytest.mark.parametrize("name", ["fid", "kid", "vendi"])
def test_their_mean_is_the_value_and_their_spread_that_of_the_interval(name: str) -> None:
    metric = METRICS[name]
    values = resampled_values([metric], GENERATED, REFERENCE, groups=PATIENTS, num_resamples=50, seed=3)[name]
    interval = bootstrap_interval(
        metric.fn,
        GENERATED,
        REFERENCE,
        groups=PATIENTS,
        num_resamples=50,
        seed=3,
        relative=metric.spread == "relative",
        confidence=0.6826894921,
    )
    assert np.isclose(values.mean(), metric.fn(GENERATED, REFERENCE)) and values.shape == (50,)
    scale = np.sqrt(7 / 8)  # the interval's correction for 15 patients, of whom a half is 7
    assert np.isclose(scale * values.std(ddof=1), interval.high - interval.value, rtol=1e-6)


def test_what_resampled_patients_do_to_two_models_falls_out_of_their_difference() -> None:
    """Two models that differ by next to nothing: each is uncertain, which one is nearer is not."""
    other = GENERATED + 0.01
    first, second = (
        resampled_values([METRICS["fid"]], films, REFERENCE, groups=PATIENTS, seed=1)["fid"]
        for films in (GENERATED, other)
    )
    assert first.std() > 0.1
    assert (second - first).std() < first.std() / 10
    assert (second > first).all()


def test_too_few_images_or_patients_give_none() -> None:
    assert resampled_values(SOME, GENERATED[:3], REFERENCE) == {}
    assert resampled_values(SOME, GENERATED, REFERENCE, groups=np.arange(30) // 10) == {}
    assert "density" not in resampled_values(SOME, GENERATED, REFERENCE)
    assert set(resampled_values(SOME, GENERATED[:6], REFERENCE[:6])) == {"fid", "kid", "vendi"}
