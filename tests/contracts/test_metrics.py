"""What every metric promises, by one suite: a new one is in it as soon as it is in the table."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.metrics import METRICS, FeatureSet, Metric

NUM_IMAGES, DIM = 40, 6


@pytest.fixture(params=sorted(METRICS))
def metric(request: pytest.FixtureRequest) -> Metric:
    entry: Metric = METRICS[request.param]
    return entry


def features(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((NUM_IMAGES, DIM)).astype(np.float32) + 0.5


def test_it_is_reported_under_its_own_and_the_extractors_name(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.reported_name("mini") == f"{metric.name}_mini"


def test_it_gives_a_finite_float_that_a_kept_reference_does_not_change(metric: Metric) -> None:
    value = metric.fn(features(0), features(1))
    assert type(value) is float and np.isfinite(value)
    assert metric.fn(FeatureSet(features(0)), FeatureSet(features(1))) == value


def test_the_order_of_the_images_does_not_matter(metric: Metric) -> None:
    shuffle = np.random.default_rng(2).permutation(NUM_IMAGES)
    value = metric.fn(features(0), features(1))
    assert metric.fn(features(0)[shuffle], features(1)[shuffle]) == pytest.approx(value, rel=1e-9)


def test_a_generator_collapsed_to_what_is_no_film_is_the_worse_one(metric: Metric) -> None:
    """Far from the films, since precision and density rightly praise one that gives a single good film."""
    collapsed = np.tile(features(0)[:1] + 10, (NUM_IMAGES, 1)) + 0.01 * features(3)
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


def test_it_refuses_different_dimensions_unless_it_looks_at_one_set(metric: Metric) -> None:
    if not metric.sees_reference:
        assert metric.fn(features(0), features(1)[:, :5]) == metric.fn(features(0), features(1))
        return
    with pytest.raises(ValueError, match="same number of features, but got 6 and 5"):
        metric.fn(features(0), features(1)[:, :5])


def test_it_is_defined_from_its_fewest_images_on_and_not_below(metric: Metric) -> None:
    enough, fewer = features(0)[: metric.min_images], features(0)[: metric.min_images - 1]
    assert np.isfinite(metric.fn(enough, features(1)[: metric.min_images]))
    with pytest.raises(ValueError, match=f"at least {metric.min_images} images"):
        metric.fn(fewer, features(1))
    with pytest.raises(ValueError, match=f"at least {metric.min_images} images"):
        metric.fn(features(0), fewer)


def test_rotating_both_sets_does_not_matter(metric: Metric) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((DIM, DIM)))
    generated, reference = features(0).astype(np.float64), features(1).astype(np.float64)
    turned = metric.fn(generated @ rotation, reference @ rotation)
    assert turned == pytest.approx(metric.fn(generated, reference), rel=1e-9)
