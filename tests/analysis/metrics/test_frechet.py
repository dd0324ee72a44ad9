"""Fréchet distance: closed forms, scipy's matrix root, invariances, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from analysis.metrics import METRICS, FeatureSet, ReferenceMoments, frechet_distance, frechet_terms
from analysis.metrics.frechet import _root_trace


def _whitened(num_images: int, dim: int, seed: int) -> NDArray[np.float64]:
    """Data with mean 0 and covariance 1 exactly."""
    data = np.random.default_rng(seed).standard_normal((num_images, dim))
    data -= data.mean(axis=0)
    orthonormal, _ = np.linalg.qr(data)
    return orthonormal * np.sqrt(num_images - 1)


def _by_matrix_root(generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """The definition, with scipy's Schur-based root of the product."""
    ours, theirs = np.cov(generated, rowvar=False), np.cov(reference, rowvar=False)
    root = scipy.linalg.sqrtm(ours @ theirs)
    means = generated.mean(axis=0) - reference.mean(axis=0)
    return float(means @ means + np.trace(ours + theirs - 2 * np.real(root)))


def test_diagonal_gaussians_have_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    scale_a, scale_b = rng.uniform(0.2, 3, 12), rng.uniform(0.2, 3, 12)
    mean_a, mean_b = rng.standard_normal(12), rng.standard_normal(12)
    distance = frechet_distance(_whitened(200, 12, 1) * scale_a + mean_a, _whitened(90, 12, 2) * scale_b + mean_b)
    expected = np.square(mean_a - mean_b).sum() + np.square(scale_a - scale_b).sum()
    assert distance == pytest.approx(expected, rel=1e-10)


def test_shift_alone_is_its_squared_length() -> None:
    data = np.random.default_rng(3).standard_normal((10, 30))
    assert frechet_distance(data + 2.0, data) == pytest.approx(30 * 4.0, rel=1e-9)


@pytest.mark.parametrize(("num_generated", "num_reference"), [(200, 150), (20, 150), (200, 20), (15, 20), (2, 2)])
def test_agrees_with_scipys_matrix_root(num_generated: int, num_reference: int) -> None:
    rng = np.random.default_rng(num_generated + num_reference)
    mix = rng.standard_normal((40, 40))
    generated = rng.standard_normal((num_generated, 40)) @ mix
    reference = rng.standard_normal((num_reference, 40)) @ mix.T + 0.3
    assert frechet_distance(generated, reference) == pytest.approx(_by_matrix_root(generated, reference), rel=1e-6)


@pytest.mark.parametrize("dim", [16, 128])
def test_agrees_with_torch_fidelity(dim: int) -> None:
    rng = np.random.default_rng(dim)
    sets = rng.standard_normal((2, 5 * dim, dim)) @ rng.standard_normal((dim, dim)) + 0.4
    sets[1] *= rng.uniform(0.5, 2, dim)
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(features)) for features in sets), False
    )
    assert frechet_distance(*sets) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_the_sum_over_parts_is_the_whole_also_where_their_means_lie_far_apart() -> None:
    rng = np.random.default_rng(9)
    parts = [rng.standard_normal((num_images, 12)) + 1e5 * rng.standard_normal(12) for num_images in (30, 3, 200)]
    whole = np.concatenate(parts)
    reference = rng.standard_normal((90, 12)) + 2e5
    summed = FeatureSet(whole, parts=[FeatureSet(part) for part in parts])
    assert frechet_distance(summed, reference) == pytest.approx(frechet_distance(whole, reference), rel=1e-12)
    assert ReferenceMoments.of(summed).trace == pytest.approx(np.trace(np.cov(whole, rowvar=False)), rel=1e-12)


def test_blocks_of_rows_add_up() -> None:
    rng = np.random.default_rng(10)
    generated, reference = rng.standard_normal((2500, 5)) * 3 + 1, rng.standard_normal((1025, 5))
    assert frechet_distance(generated, reference) == pytest.approx(_by_matrix_root(generated, reference), rel=1e-9)


def test_terms_add_up_to_the_distance() -> None:
    rng = np.random.default_rng(11)
    generated, reference = rng.standard_normal((50, 6)) * 2 + 1, rng.standard_normal((40, 6))
    terms = frechet_terms(generated, reference)
    assert terms.means == pytest.approx(np.square(generated.mean(axis=0) - reference.mean(axis=0)).sum())
    assert terms.traces == pytest.approx(generated.var(axis=0, ddof=1).sum() + reference.var(axis=0, ddof=1).sum())
    assert terms.means + terms.traces - 2 * terms.cross_trace == frechet_distance(generated, reference)
    assert frechet_terms(generated[:4], reference).clipped_mass == 0
    repeated = frechet_terms(np.repeat(generated, 9, axis=1), np.repeat(reference, 9, axis=1))  # rank 6 of 54
    assert repeated.distance == pytest.approx(9 * terms.distance, rel=1e-6)


def test_duplicating_both_sets_scales_both_covariances_alike() -> None:
    """Twice the rows multiply an unbiased covariance by 2 (n - 1) / (2 n - 1); equal n, so the traces with it."""
    rng = np.random.default_rng(12)
    generated, reference = rng.standard_normal((40, 5)) * 2 + 1, rng.standard_normal((40, 5))
    terms = frechet_terms(generated, reference)
    twice = frechet_distance(np.tile(generated, (2, 1)), np.tile(reference, (2, 1)))
    assert twice == pytest.approx(terms.means + 78 / 79 * (terms.traces - 2 * terms.cross_trace), rel=1e-10)


def test_low_rank_and_full_routes_agree() -> None:
    """With n < d the distance equals that of the same points written in fewer dimensions, where n > d."""
    rng = np.random.default_rng(5)
    generated, reference = rng.standard_normal((30, 8)), rng.standard_normal((25, 8)) * 2
    embed, _ = np.linalg.qr(rng.standard_normal((64, 8)))
    small = frechet_distance(generated, reference)
    assert frechet_distance(generated @ embed.T, reference @ embed.T) == pytest.approx(small, rel=1e-9)


def test_kept_moments_give_the_same_and_survive_pickling() -> None:
    rng = np.random.default_rng(6)
    generated, reference = rng.standard_normal((50, 20)), rng.standard_normal((80, 20))
    moments = pickle.loads(pickle.dumps(ReferenceMoments.of(reference)))
    assert frechet_distance(generated, moments) == frechet_distance(generated, reference)
    assert (moments.num_images, moments.dim) == (80, 20)
    assert moments.trace == pytest.approx(np.trace(np.cov(reference, rowvar=False)))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 25), st.integers(2, 25), st.integers(1, 12), st.integers(0, 999))
def test_invariances(num_generated: int, num_reference: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    generated, reference = rng.standard_normal((num_generated, dim)), rng.standard_normal((num_reference, dim)) * 1.5
    distance = frechet_distance(generated, reference)
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    tolerance = {"rel": 1e-6, "abs": 1e-6}
    assert distance >= 0
    assert frechet_distance(reference, generated) == pytest.approx(distance, **tolerance)
    assert frechet_distance(generated @ rotation + 1, reference @ rotation + 1) == pytest.approx(distance, **tolerance)
    assert frechet_distance(3 * generated, 3 * reference) == pytest.approx(9 * distance, **tolerance)
    assert frechet_distance(rng.permutation(generated), reference) == pytest.approx(distance, **tolerance)
    assert frechet_distance(generated, generated) == pytest.approx(0, abs=1e-6)


def test_float32_features_are_computed_in_float64() -> None:
    rng = np.random.default_rng(7)
    generated = rng.standard_normal((30, 100)).astype(np.float32) + 1000
    reference = rng.standard_normal((40, 100)).astype(np.float32) + 1000
    exact = frechet_distance(generated.astype(np.float64), reference.astype(np.float64))
    assert frechet_distance(generated, reference) == exact


def test_negative_mass_is_clipped_only_where_it_is_round_off() -> None:
    trace, clipped_mass = _root_trace(np.diag([4.0, 9.0, -1.3e-11]))
    assert (trace, clipped_mass) == (pytest.approx(5.0), pytest.approx(1e-12))
    with pytest.raises(FloatingPointError, match="negative eigenvalues"):
        _root_trace(np.diag([4.0, 9.0, -0.1]))


@pytest.mark.parametrize(
    ("generated", "reference", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "`generated` must hold at least 2 images, but got 1"),
        (np.zeros((5, 3)), np.zeros((1, 3)), "`reference` must hold at least 2 images, but got 1"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "same number of features, but got 3 and 4"),
        (np.zeros(5), np.zeros((5, 4)), r"must be an array \[n, d\]"),
        (np.array([[0, 1.0], [np.nan, 1]]), np.zeros((5, 2)), "must be finite, .* first in row 1"),
        (np.zeros((5, 2)), np.array([[np.inf, 1.0], [0, 1]]), "`reference` must be finite"),
    ],
)
def test_refusals(generated: NDArray[np.float64], reference: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(generated, reference)


def test_is_in_the_table() -> None:
    rng = np.random.default_rng(8)
    generated, reference = rng.standard_normal((9, 4)), rng.standard_normal((9, 4))
    metric = METRICS["fid"]
    assert (metric.direction, metric.reported_name("xrv")) == ("min", "fid_xrv")
    assert metric.fn(generated, reference) == frechet_distance(generated, reference)
