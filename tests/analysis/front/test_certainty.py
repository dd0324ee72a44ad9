"""The probability of being on the front: closed forms, limits, and how often it holds."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from analysis.front.certainty import Noise, front_probabilities
from analysis.front.pareto import pareto_mask
from benchmarks.front_calibration import FAMILIES, calibration


def _noise(num_draws: int, *spread: tuple[float, ...], seed: int = 0) -> Noise:
    """Independent noise: float[n, m] standard deviations."""
    rng = np.random.default_rng(seed)
    return Noise(
        trials=rng.standard_normal((num_draws, len(spread), len(spread[0]))) * np.array(spread),
        base=np.zeros((num_draws, len(spread[0]))),
    )


def test_of_two_trials_and_one_objective_it_is_the_normal_probability_of_their_difference() -> None:
    noise = _noise(40_000, (0.6,), (0.8,))
    probabilities = front_probabilities([[2.0], [3.0]], ["min"], noise)
    assert probabilities == pytest.approx([NormalDist().cdf(1.0), NormalDist().cdf(-1.0)], abs=0.01)
    assert front_probabilities([[2.0], [3.0]], ["max"], noise) == pytest.approx(probabilities[::-1], abs=0.02)


def test_noise_that_all_share_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.standard_normal((300, 1, 2)) * 100, 5, axis=1)
    values = rng.standard_normal((5, 2))
    probabilities = front_probabilities(values, ["min", "max"], Noise(trials=shared, base=shared[:, 0]), [0.0, 0.0])
    beside = np.vstack([values, [0.0, 0.0]])
    assert probabilities.tolist() == pareto_mask(beside, ["min", "max"])[:5].astype(float).tolist()


def test_the_base_beats_what_is_worse_and_costs_more() -> None:
    values = [[2.0, 1.0], [6.0, 1.0], [5.0, 1.0]]
    noise = _noise(20_000, (0.5, 0.0), (0.5, 0.0), (0.5, 0.0))
    probabilities = front_probabilities(
        np.array(values)[[0]], ["min", "min"], Noise(trials=noise.trials[:, :1], base=noise.base), [2.0, 0.0]
    )
    assert probabilities == pytest.approx([0.5], abs=0.02)
    assert front_probabilities(values, ["min", "max"], noise, [1.0, np.inf])[1] < 0.001


def test_lucky_values_count_for_less() -> None:
    """Twelve equal trials: the one that measured best is not surely the best, were there no noise."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((12, 1))
    probabilities = front_probabilities(values, ["min"], _noise(2000, *[(1.0,)] * 12))
    naive = np.mean([(values + noise).argmin() == values.argmin() for noise in _noise(2000, *[(1.0,)] * 12).trials])
    assert probabilities[values.argmin()] < naive


@pytest.mark.slow
def test_points_given_nine_tenths_are_on_the_front_nine_times_in_ten() -> None:
    """Known worlds of every family, seen through the resamples and epochs that a sweep leaves; `make test` takes few."""
    rows = [calibration(family, num_worlds=20, num_trials=32, seed=7, with_plain=False) for family in FAMILIES]
    hits, points = sum(row.hits_at_nine_tenths for row in rows), sum(row.points_at_nine_tenths for row in rows)
    assert points > 80
    assert 0.85 <= hits / points <= 0.95
