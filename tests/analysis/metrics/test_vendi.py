"""Vendi score: closed forms, the n x n definition, invariances, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.metrics import METRICS, FeatureSet, vendi_score, vendi_score_of_batches

ORDERS = [0.1, 0.5, 1.0, 2.0, 7.0, np.inf]


def _by_definition(features: NDArray[np.float64], order: float) -> float:
    """Eigenvalues of the n x n kernel matrix over n, straight from the definition."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    if order == 1:
        return float(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))))
    if order == np.inf:
        return float(1 / eigenvalues.max())
    return float(np.sum(eigenvalues**order) ** (1 / (1 - order)))


@pytest.mark.parametrize("order", [0.0, *ORDERS])
def test_identical_images_count_as_one(order: float) -> None:
    features = np.tile(np.random.default_rng(0).standard_normal(9), (14, 1))
    assert vendi_score(features, order) == pytest.approx(1.0)


@pytest.mark.parametrize("order", [0.0, *ORDERS])
def test_orthogonal_images_all_count(order: float) -> None:
    orthonormal, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((20, 6)))
    assert vendi_score(3 * orthonormal.T, order) == pytest.approx(6.0)


@pytest.mark.parametrize(("order", "expected"), [(1.0, 2**1.5), (2.0, 8 / 3), (np.inf, 2.0), (0.0, 3.0)])
def test_uneven_clusters_have_the_closed_form(order: float, expected: float) -> None:
    """Half of one kind and a quarter of each of two others: the spectrum is 1/2, 1/4, 1/4."""
    features = np.eye(3)[[0, 0, 1, 2]]
    assert vendi_score(features, order) == pytest.approx(expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (12, 12), (2, 3)])
def test_agrees_with_the_definition(shape: tuple[int, int], order: float) -> None:
    features = np.random.default_rng(sum(shape)).standard_normal(shape) + 0.5
    assert vendi_score(features, order) == pytest.approx(_by_definition(features, order), rel=1e-9)


@pytest.mark.parametrize("order", [0.0, *ORDERS])
@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (1500, 6)])
def test_batches_parts_and_the_whole_agree(shape: tuple[int, int], order: float) -> None:
    features = np.random.default_rng(sum(shape)).standard_normal(shape) + 0.5
    cuts = [1, 3, shape[0] // 2]
    score = vendi_score(features, order)
    assert vendi_score_of_batches(iter(np.split(features, cuts)), order) == pytest.approx(score, rel=1e-9)
    parts = [FeatureSet(part) for part in np.split(features, [2, shape[0] // 2])]
    assert vendi_score(FeatureSet(features, parts=parts), order) == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([np.ones((2, 3)), np.ones((2, 4))], "`batches` must all have 3 features, but got one of 4"),
        ([np.ones((1, 3))], "`batches` must hold at least 2 images, but got 1"),
        ([], "`batches` must hold at least 2 images, but got 0"),
        ([np.ones((2, 3)), np.zeros((1, 3))], "no row of zeros, but got 1 of 1"),
    ],
)
def test_batches_that_are_refused(batches: list[NDArray[np.float64]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vendi_score_of_batches(batches)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(1, 20), st.integers(0, 999), st.sampled_from(ORDERS))
def test_invariances(num_images: int, dim: int, seed: int, order: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_images, dim)) + 0.1
    score = vendi_score(features, order)
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    lengths = rng.uniform(0.1, 10, (num_images, 1))
    assert 1 - 1e-9 <= score <= min(num_images, dim) + 1e-9
    assert vendi_score(features @ rotation, order) == pytest.approx(score, rel=1e-4)
    assert vendi_score(features * lengths, order) == pytest.approx(score, rel=1e-4)
    assert vendi_score(rng.permutation(features), order) == pytest.approx(score, rel=1e-4)
    assert vendi_score(np.concatenate([features, features]), order) == pytest.approx(score, rel=1e-4)


def test_higher_orders_never_score_higher() -> None:
    features = np.random.default_rng(3).standard_normal((30, 8)) + 1
    scores = [vendi_score(features, order) for order in (0.0, *ORDERS)]
    assert scores == sorted(scores, reverse=True)
    assert vendi_score(features, 1 + 1e-7) == pytest.approx(vendi_score(features), rel=1e-5)


def test_tiny_and_huge_rows_keep_their_direction() -> None:
    features = np.eye(3) * np.array([[1e-200], [1.0], [1e200]])
    assert vendi_score(features) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("features", "order", "message"),
    [
        (np.array([[1.0, 0], [0, 0]]), 1.0, "no row of zeros, but got 1 of 2"),
        (np.ones((1, 3)), 1.0, "at least 2 images, but got 1"),
        (np.array([[1.0, 0], [np.nan, 0]]), 1.0, "must be finite"),
        (np.ones((4, 3)), -1.0, "`order` must be a number >= 0 or infinity, but got -1"),
        (np.ones((4, 3)), np.nan, "`order` must be"),
    ],
)
def test_refusals(features: NDArray[np.float64], order: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vendi_score(features, order)


def test_is_in_the_table() -> None:
    features = np.random.default_rng(4).standard_normal((9, 4))
    assert METRICS["vendi"].direction == "max"
    assert METRICS["vendi"].fn(features, np.zeros((5, 4))) == vendi_score(features)
