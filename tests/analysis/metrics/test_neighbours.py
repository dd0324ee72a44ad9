"""Precision, recall, density, coverage: hand-made cases, torch-fidelity, the definitions, invariances, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_fidelity.metric_prc import calculate_precision_recall_full

from analysis.metrics import FeatureSet, density_coverage, precision_recall
from analysis.metrics.neighbours import nearest_distances

Features = NDArray[np.float64]


def _distance(first: Features, second: Features) -> float:
    return float(np.sqrt(np.square(first - second).sum()))


def _radii(images: Features, num_neighbours: int) -> list[float]:
    return [
        sorted(_distance(image, other) for j, other in enumerate(images) if j != i)[num_neighbours - 1]
        for i, image in enumerate(images)
    ]


def _by_definition(generated: Features, reference: Features, num_neighbours: int) -> tuple[float, float, float, float]:
    """Kynkäänniemi et al. 2019, eq. 1 and 2; Naeem et al. 2020, eq. 4 and 5; pair by pair."""
    real_balls = list(zip(reference, _radii(reference, num_neighbours), strict=True))
    generated_balls = list(zip(generated, _radii(generated, num_neighbours), strict=True))
    precision = np.mean([any(_distance(g, r) <= radius for r, radius in real_balls) for g in generated])
    recall = np.mean([any(_distance(r, g) <= radius for g, radius in generated_balls) for r in reference])
    inside = sum(_distance(g, r) <= radius for g in generated for r, radius in real_balls)
    coverage = np.mean([any(_distance(g, r) <= radius for g in generated) for r, radius in real_balls])
    return float(precision), float(recall), inside / (num_neighbours * len(generated)), float(coverage)


def _all_four(generated: Features, reference: Features, num_neighbours: int) -> tuple[float, ...]:
    return (
        *precision_recall(generated, reference, num_neighbours),
        *density_coverage(generated, reference, num_neighbours),
    )


def test_points_on_a_line() -> None:
    """Balls of radius 1 about the films; of 0.1, 0.1 and 8.4 about the generated, the last reaching from 0.6 to 17.4."""
    reference, generated = np.array([[0.0], [1], [2], [3]]), np.array([[0.5], [0.6], [9]])
    assert precision_recall(generated, reference, 1) == pytest.approx((2 / 3, 3 / 4))
    assert density_coverage(generated, reference, 1) == pytest.approx((4 / 3, 2 / 4))


def test_copies_of_the_films_lie_among_them() -> None:
    """Each copy is in the ball of its film and, on the edge, of whatever films it is the k-th neighbour of."""
    films = np.random.default_rng(0).standard_normal((60, 4)) + 100
    assert precision_recall(films.copy(), films) == (1.0, 1.0)
    assert density_coverage(films.copy(), films, 5) == (pytest.approx(6 / 5), 1.0)


def test_films_all_alike_hold_only_their_copies() -> None:
    film = np.random.default_rng(1).standard_normal(50) * 100
    reference = np.tile(film, (9, 1))
    assert precision_recall(np.tile(film, (8, 1)), reference) == (1.0, 1.0)
    assert precision_recall(np.tile(film * (1 + 1e-3), (8, 1)), reference) == (0.0, 0.0)


def test_two_samples_of_one_distribution_have_density_one() -> None:
    rng = np.random.default_rng(2)
    values = [density_coverage(rng.standard_normal((80, 3)), rng.standard_normal((80, 3))) for _ in range(200)]
    densities, coverages = np.transpose(values)
    assert densities.mean() == pytest.approx(1.0, abs=4 * densities.std() / np.sqrt(200))
    # Naeem et al. 2020, lemma 2: the expected coverage of n films by m images, whatever the distribution.
    num_films, num_images, k = 80, 80, 5
    terms = [(num_films - i) / (num_films + num_images - i) for i in range(1, k + 1)]
    assert coverages.mean() == pytest.approx(1 - np.prod(terms), abs=4 * coverages.std() / np.sqrt(200))


@pytest.mark.parametrize("num_neighbours", [1, 3, 5, 7])
@pytest.mark.parametrize(("num_generated", "num_reference"), [(30, 25), (8, 40)])
def test_agrees_with_the_definitions(num_generated: int, num_reference: int, num_neighbours: int) -> None:
    rng = np.random.default_rng(num_generated + num_neighbours)
    generated, reference = rng.standard_normal((num_generated, 3)) * 0.8, rng.standard_normal((num_reference, 3))
    expected = _by_definition(generated, reference, num_neighbours)
    assert _all_four(generated, reference, num_neighbours) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_agrees_with_torch_fidelity_over_several_blocks() -> None:
    rng = np.random.default_rng(3)
    generated, reference = rng.standard_normal((1100, 8)) * 0.9 + 0.2, rng.standard_normal((2100, 8))
    theirs = calculate_precision_recall_full(torch.from_numpy(generated), torch.from_numpy(reference), neighborhood=3)
    assert precision_recall(generated, reference) == pytest.approx(theirs, rel=1e-6)  # theirs averages in float32


@pytest.mark.slow
def test_nearest_distances_over_several_blocks() -> None:
    images = np.random.default_rng(4).standard_normal((1500, 3))
    squares = np.square(images[:, None] - images[None]).sum(axis=2)
    expected = np.sort(squares, axis=1)[:, 1:8]
    assert nearest_distances(FeatureSet(images), 7) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 20), st.integers(5, 20), st.integers(2, 8), st.integers(1, 4), st.integers(0, 999))
def test_invariances(num_generated: int, num_reference: int, dim: int, num_neighbours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    generated, reference = rng.standard_normal((num_generated, dim)), rng.standard_normal((num_reference, dim))
    values = _all_four(generated, reference, num_neighbours)
    rotation, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    assert _all_four(rng.permutation(generated), rng.permutation(reference), num_neighbours) == pytest.approx(values)
    assert _all_four(generated @ rotation + 5, reference @ rotation + 5, num_neighbours) == pytest.approx(values)
    assert _all_four(7 * generated, 7 * reference, num_neighbours) == pytest.approx(values)
    precision, recall = precision_recall(generated, reference, num_neighbours)
    assert precision_recall(reference, generated, num_neighbours) == pytest.approx((recall, precision))
    # A generated image more than once adds nothing but weight: these are shares of them all.
    assert density_coverage(np.tile(generated, (2, 1)), reference, num_neighbours) == pytest.approx(values[2:])


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
@pytest.mark.parametrize(
    ("generated", "reference", "message"),
    [
        (np.ones((5, 3)), np.ones((9, 3)), "but got 5 with 5 generated and 9 real"),
        (np.ones((9, 3)), np.ones((5, 3)), "but got 5 with 9 generated and 5 real"),
        (np.ones((9, 3)), np.ones((9, 2)), "same number of features, but got 3 and 2"),
        (np.full((9, 3), np.inf), np.ones((9, 3)), "`generated` must be finite"),
    ],
)
def test_refusals(function: object, generated: Features, reference: Features, message: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=message):
        function(generated, reference, 5)


def test_no_neighbour_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_neighbours` must be at least 1"):
        precision_recall(np.ones((5, 3)), np.ones((5, 3)), 0)
