"""Kernel distance: closed form, torch-fidelity, the double sum, invariances, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_fidelity.metric_kid import kid_features_to_metric

from analysis.metrics import kernel_distance, kernel_distance_by_subsets

Features = NDArray[np.float64]


def _two_sets(num_generated: int, num_reference: int, dim: int) -> tuple[Features, Features]:
    rng = np.random.default_rng(num_generated + num_reference + dim)
    return rng.standard_normal((num_generated, dim)) + 0.3, rng.standard_normal((num_reference, dim)) * 1.2


def _by_double_sum(generated: Features, reference: Features) -> float:
    """Gretton et al. 2012, eq. 3, pair by pair."""

    def kernel(first: Features, second: Features) -> float:
        return float((first @ second / len(first) + 1) ** 3)

    within = [
        sum(kernel(a, b) for i, a in enumerate(images) for j, b in enumerate(images) if i != j)
        / (len(images) * (len(images) - 1))
        for images in (generated, reference)
    ]
    across = sum(kernel(a, b) for a in generated for b in reference) / (len(generated) * len(reference))
    return sum(within) - 2 * across


def test_two_values_each_have_the_closed_form() -> None:
    """In one dimension, {0, 1} against {0, 2}: k(x, y) = (x y + 1)^3."""
    generated, reference = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    across = (1 + 1 + 1 + 27) / 4
    assert kernel_distance(generated, reference) == pytest.approx(1 + 1 - 2 * across)


@pytest.mark.slow
def test_its_mean_is_the_squared_distance_of_the_moments() -> None:
    """In one dimension MMD^2 = sum over k of binom(3, k) (E x^k - E y^k)^2; the estimate is unbiased even at n = 4."""
    rng = np.random.default_rng(0)
    values = [kernel_distance(rng.integers(0, 2, (4, 1)), 2 * rng.integers(0, 2, (5, 1))) for _ in range(4000)]
    moments = [(0.5 - 2**power / 2) ** 2 * math.comb(3, power) for power in range(1, 4)]
    assert np.mean(values) == pytest.approx(sum(moments), abs=4 * np.std(values) / np.sqrt(len(values)))


@pytest.mark.parametrize(("num_generated", "num_reference", "dim"), [(7, 5, 3), (2, 2, 1), (4, 9, 20)])
def test_agrees_with_the_double_sum(num_generated: int, num_reference: int, dim: int) -> None:
    sets = _two_sets(num_generated, num_reference, dim)
    assert kernel_distance(*sets) == pytest.approx(_by_double_sum(*sets), rel=1e-10)


@pytest.mark.slow
def test_agrees_with_torch_fidelity_over_several_blocks() -> None:
    sets = _two_sets(2100, 2100, 16)
    theirs = kid_features_to_metric(
        *(torch.from_numpy(features) for features in sets), kid_subsets=1, kid_subset_size=2100, verbose=False
    )
    expected = theirs["kernel_inception_distance_mean"]
    assert kernel_distance(*sets) == pytest.approx(expected, rel=1e-9)
    subset = kernel_distance_by_subsets(*sets, num_subsets=1, subset_size=2100)
    assert (subset.mean, subset.std) == (pytest.approx(expected, rel=1e-9), 0.0)


def test_subsets_scatter_about_the_exact_value() -> None:
    sets = _two_sets(300, 400, 8)
    estimate = kernel_distance_by_subsets(*sets, num_subsets=200, subset_size=50, seed=1)
    error = estimate.std / np.sqrt(estimate.num_subsets)
    assert estimate.mean == pytest.approx(kernel_distance(*sets), abs=4 * error)
    assert estimate == kernel_distance_by_subsets(*sets, num_subsets=200, subset_size=50, seed=1)
    assert estimate != kernel_distance_by_subsets(*sets, num_subsets=200, subset_size=50, seed=2)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 8), st.integers(0, 999))
def test_invariances(num_generated: int, num_reference: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    generated, reference = rng.standard_normal((num_generated, dim)), rng.standard_normal((num_reference, dim)) * 1.5
    distance = kernel_distance(generated, reference)
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    tolerance = {"rel": 1e-9, "abs": 1e-9}
    assert kernel_distance(reference, generated) == pytest.approx(distance, **tolerance)
    assert kernel_distance(rng.permutation(generated), reference) == pytest.approx(distance, **tolerance)
    assert kernel_distance(generated @ rotation, reference @ rotation) == pytest.approx(distance, **tolerance)
    # Every feature twice: x.y and d both double, so that the kernel stays.
    wide = kernel_distance(np.tile(generated, (1, 2)), np.tile(reference, (1, 2)))
    assert wide == pytest.approx(distance, **tolerance)


@pytest.mark.parametrize(
    ("num_subsets", "subset_size"), [(0, 10), (3, 1), (3, 31)], ids=["no subset", "one image", "more than there are"]
)
def test_subsets_that_are_refused(num_subsets: int, subset_size: int) -> None:
    with pytest.raises(ValueError, match=rf"`subset_size` in 2..30, .* but got {num_subsets} and {subset_size}"):
        kernel_distance_by_subsets(*_two_sets(30, 40, 3), num_subsets=num_subsets, subset_size=subset_size)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="same number of features, but got 3 and 2"):
        kernel_distance(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="`reference` must hold at least 2 images, but got 1"):
        kernel_distance(np.ones((4, 3)), np.ones((1, 3)))
    with pytest.raises(ValueError, match="`generated` must be finite"):
        kernel_distance(np.full((4, 3), np.nan), np.ones((4, 3)))
