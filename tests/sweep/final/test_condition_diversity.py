"""MS-SSIM within conditions: two kinds of films, each all alike, have no diversity however much the kinds differ."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from analysis.metrics import ms_ssim, ms_ssim_diversity
from sweep.final.quality import diversity_by_condition

ROWS = {"Edema": np.array([0, 1, 2, 6]), "Effusion": np.array([3, 4, 5, 6])}


def test_kinds_that_differ_are_no_diversity_within_a_kind() -> None:
    kinds = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    films = kinds[[0, 0, 0, 1, 1, 1]]
    rows = {"Edema": np.arange(3), "Effusion": np.arange(3, 6)}
    assert [diversity.value for diversity in diversity_by_condition(films, rows).values()] == pytest.approx([1, 1])
    assert ms_ssim_diversity(films).value < 0.7


def test_values_are_means_over_the_pairs_of_a_condition() -> None:
    films = np.random.default_rng(1).integers(0, 256, (7, 32, 32), np.uint8)
    by_condition = diversity_by_condition(films, ROWS)
    for name, rows in ROWS.items():
        pairs = [ms_ssim(films[[a]], films[[b]])[0] for a, b in combinations(rows, 2)]
        assert by_condition[name].value == pytest.approx(np.mean(pairs)) and by_condition[name].num_pairs == 6


def test_pairs_are_shared_out_and_the_same_for_any_films() -> None:
    """One film in seven is another: what its pairs tell says which pairs were taken."""
    plain = np.full((7, 32, 32), 128, np.uint8)
    odd = np.stack([plain] * 7)
    noise = np.random.default_rng(2).integers(0, 256, (2, 32, 32), np.uint8)
    taken = []
    for other in noise:
        odd[range(7), range(7)] = other
        results = [diversity_by_condition(films, ROWS, num_pairs=5) for films in odd]
        assert {diversity.num_pairs for by_condition in results for diversity in by_condition.values()} == {3}
        taken.append([[by_condition[name].value < 1 - 1e-6 for name in ROWS] for by_condition in results])
    assert taken[0] == taken[1] and np.any(taken[0])
