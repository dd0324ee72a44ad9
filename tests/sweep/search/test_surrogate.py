"""The Gaussian process over trainings: beside scikit-learn's, and beside the densities that it claims to have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from sweep.search.surrogate import JITTER, NO_TRAINING, Places, Scales, Surrogate

RNG = np.random.default_rng(0)


def places(num: int, *, num_strategies: int = 3, num_columns: int = 2, seed: int = 0) -> Places:
    rng = np.random.default_rng(seed)
    return Places(
        trials=np.arange(num) // 2 + 1000 * seed,
        strategies=rng.integers(num_strategies, size=num),
        shares=rng.random((num, num_columns)),
        unfinished=rng.choice([0.0, 0.5, 1.0], size=num),
    )


def scales(*variances: float, noise: float = 0.05) -> Scales:
    return Scales(lengths=np.array([0.4, 0.8]), variances=np.array(variances), noise=noise, shared=(0,))


ALL_PARTS = scales(0.5, 0.3, 0.7, 0.3, 0.2, 0.1, 0.4)


def test_of_one_strategy_it_is_scikit_learns_process() -> None:
    seen, asked = places(20, num_strategies=1), places(9, num_strategies=1, seed=1)
    errors, values = np.full(20, 0.3), np.sin(5 * seen.shares[:, 0]) + seen.shares[:, 1]
    seen, asked = (replace(each, unfinished=0 * each.unfinished) for each in (seen, asked))
    mean, spread = Surrogate(seen, values, errors, scales(0, 0, 0.7, 0, 0, 0, 0)).predict(asked)
    unit = values.std()
    kernel = ConstantKernel(0.7, "fixed") * Matern([0.4, 0.8], "fixed", nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=(0.3 / unit) ** 2 + 0.05 + JITTER, optimizer=None)
    theirs.fit(seen.shares, (values - values.mean()) / unit)
    their_mean, their_spread = theirs.predict(asked.shares, return_std=True)
    np.testing.assert_allclose(mean, their_mean * unit + values.mean(), rtol=1e-9)
    np.testing.assert_allclose(spread, their_spread * unit, rtol=1e-7)


def test_the_gradient_is_that_of_the_density() -> None:
    seen = places(15)
    values, errors = RNG.normal(size=15), np.full(15, 0.1)

    def loss(logs: np.ndarray) -> float:
        return Scales._of(logs, (0,))._negative_log_likelihood(seen, values, errors)[0]

    def gradient(logs: np.ndarray) -> np.ndarray:
        return Scales._of(logs, (0,))._negative_log_likelihood(seen, values, errors)[1]

    at = RNG.normal(-1, 0.5, size=10)
    assert check_grad(loss, gradient, at) < 1e-4
    density = multivariate_normal(cov=Scales._of(at, (0,)).measured(seen, errors)).logpdf(values)
    assert loss(at) == pytest.approx(-density - 15 / 2 * np.log(2 * np.pi))


def test_covariances_are_positive_and_their_diagonal_is_the_variance() -> None:
    seen = places(40)
    covariance = ALL_PARTS.covariance(seen, seen)
    np.testing.assert_allclose(np.diag(covariance), ALL_PARTS.variance(seen))
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    np.testing.assert_allclose(covariance, covariance.T)


def test_draws_have_the_moments_of_the_prediction() -> None:
    """100,000 draws: means within 5 standard errors, covariances of the first kind within 3 %."""
    seen, kept, others = places(12), places(4, seed=1), places(3, seed=2)
    known = Surrogate(seen, RNG.normal(size=12), np.full(12, 0.2), ALL_PARTS)
    num = 100_000
    together, apart = known.draw(kept, others, np.random.default_rng(3).standard_normal((num, 7)))
    for drawn, asked in ((together, kept), (apart, others)):
        mean, spread = known.predict(asked)
        np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - mean), 5 * spread / np.sqrt(num) + 1e-3)
        np.testing.assert_allclose(drawn.std(axis=0), spread, rtol=0.02, atol=2e-3)


def test_draws_of_one_place_as_either_kind_agree() -> None:
    """What is drawn at a place given the others is what was drawn there, where it is one of them."""
    seen, kept = places(12), places(4, seed=1)
    known = Surrogate(seen, RNG.normal(size=12), np.full(12, 0.2), ALL_PARTS)
    together, again = known.draw(kept, kept, np.random.default_rng(3).standard_normal((1000, 8)))
    np.testing.assert_allclose(together, again, atol=0.02)


def test_scales_are_found_that_made_the_values() -> None:
    """Of 200 values, the parameter that matters gets the shorter length, and the noise is found within a factor of two."""
    seen = places(200, num_strategies=2)
    seen = replace(seen, trials=np.arange(200), unfinished=np.zeros(200))
    values = np.sin(6 * seen.shares[:, 0]) + np.random.default_rng(1).normal(0, 0.1, 200)
    scales = Scales.fit(seen, values, np.zeros(200), (0,))
    assert scales.lengths[0] < scales.lengths[1]
    unexplained = scales.noise + scales.variances[3]
    assert 0.5 < unexplained / (0.1 / values.std()) ** 2 < 2


def test_a_rung_tells_of_the_end() -> None:
    """Of two trainings of an unseen kind, the one that stands better at a rung is expected to end better."""
    rng = np.random.default_rng(0)
    shares, ends = rng.random((20, 1)), rng.normal(size=20)
    seen = Places(
        trials=np.array([*range(20), *range(22)]),
        strategies=np.zeros(42, np.int64),
        shares=np.concatenate([shares, shares, [[0.21], [0.77]]]),
        unfinished=np.repeat([0.0, 1.0], [20, 22]),
    )
    values = np.concatenate([ends, ends + 3, [1.0, 5.0]])
    scales = Scales.fit(seen, values, np.zeros(42), (0,))
    asked = Places(
        trials=seen.trials[-2:], strategies=np.zeros(2, np.int64), shares=seen.shares[-2:], unfinished=np.zeros(2)
    )
    better, worse = Surrogate(seen, values, np.zeros(42), scales).predict(asked)[0]
    assert better < worse - 1


def test_what_is_luck_is_not_expected_again() -> None:
    """Of trainings of one configuration that differ, each came to its own, and another is expected to give their mean."""
    seen = replace(places(8, num_strategies=1), shares=np.zeros((8, 2)), unfinished=np.zeros(8), trials=np.arange(8))
    values = RNG.normal(size=8)
    known = Surrogate(seen, values, np.zeros(8), scales(0, 0, 1e6, 1.0, 0, 0, 0, noise=1e-9))
    np.testing.assert_allclose(known.predict(seen)[0], values, atol=1e-4)
    mean, spread = known.predict(replace(seen, trials=np.full(8, NO_TRAINING)))
    np.testing.assert_allclose(mean, values.mean(), atol=1e-4)
    np.testing.assert_allclose(spread, values.std() / np.sqrt(8), rtol=1e-3)
