"""What every metric promises, by one suite: a new one is in it as soon as it is in the table."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.metrics import METRICS, Metric, Reference

NUM_IMAGES, DIM = 40, 6


@pytest.fixture(params=sorted(METRICS))
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = METRICS[request.param]
    return found


def features(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((NUM_IMAGES, DIM)).astype(np.float32) + 0.5


def test_it_is_reported_under_its_own_and_the_extractors_name(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.reported_name("mini") == f"{metric.name}_mini"


def test_it_gives_a_finite_float_that_a_kept_reference_does_not_change(metric: Metric) -> None:
    value = metric.fn(features(0), features(1))
    assert type(value) is float and np.isfinite(value)
    assert metric.fn(features(0), Reference(features(1))) == value


def test_the_order_of_the_images_does_not_matter(metric: Metric) -> None:
    shuffle = np.random.default_rng(2).permutation(NUM_IMAGES)
    value = metric.fn(features(0), features(1))
    assert metric.fn(features(0)[shuffle], features(1)[shuffle]) == pytest.approx(value, rel=1e-9)


def test_a_collapsed_generator_is_the_worse_one(metric: Metric) -> None:
    collapsed = np.tile(features(0)[:1], (NUM_IMAGES, 1)) + 0.01 * features(3)
    varied, single = metric.fn(features(0), features(1)), metric.fn(collapsed, features(1))
    assert (single < varied) == (metric.direction == "max")


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_it_refuses_what_is_no_number(metric: Metric, broken: float) -> None:
    generated = features(0)
    generated[3, 2] = broken
    with pytest.raises(ValueError, match="must be finite, but got NaN or infinity in 1 of 40 rows, first in row 3"):
        metric.fn(generated, features(1))


def test_it_refuses_a_single_image(metric: Metric) -> None:
    with pytest.raises(ValueError, match="must hold at least 2 images, but got 1"):
        metric.fn(features(0)[:1], features(1))
