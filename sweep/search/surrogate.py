"""What an objective comes to at the end of a training: one Gaussian process over all strategies.

It learns from trainings that ended and from those that were stopped at a rung alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]

NUM_PARTS: Final = 7
NUM_LASTING: Final = 4
"""Parts of the covariance that stay to the end of a training; the others stand for what is missing before it."""
LUCK: Final = 3
"""The part that is a training's own, such as its seed's."""
NO_TRAINING: Final = -1
"""Stands for no training in particular, which has no luck of its own: what a configuration gives, on the average over seeds. Were
luck expected of it, the best configuration would promise a gain however often it was trained."""
LENGTH: Final = (0.6, 0.6)
"""Prior of a length scale, in shares of a parameter's range: its median, and the width of its logarithm."""
VARIANCE: Final = (0.3, 1.0)
"""Prior of the variance of a part, likewise; values have mean 0 and variance 1."""
NOISE: Final = (0.02, 1.0)
"""Prior of the noise that comes on top of known errors, such as that of the training's seed, likewise."""
MOST_STEPS: Final = 40
"""The most steps that the optimiser takes from the priors' medians."""
JITTER: Final = 1e-6


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where trainings lie.

    Attributes:
        strategies: int[n], the number of each one's strategy.
        shares: float[n, d], its parameters as shares of their ranges; 0 for what its strategy does not have.
        unfinished: float[n], 0 at a training's end, 1 at the first rung.
        trials: int[n], the same for rungs and end of one training, another for each training, or NO_TRAINING.
    """

    trials: NDArray[np.int64]
    strategies: NDArray[np.int64]
    shares: Floats
    unfinished: Floats

    def __len__(self) -> int:
        return len(self.strategies)

    def only(self, chosen: NDArray[np.bool_]) -> Places:
        """Some of them."""
        return Places(
            trials=self.trials[chosen],
            strategies=self.strategies[chosen],
            shares=self.shares[chosen],
            unfinished=self.unfinished[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Scales:
    """The covariance of two trainings' values: seven parts, each with a variance of its own.

    What a strategy makes of a training's value; what the parameters make of it that all strategies have; what all its
    parameters make of it within its strategy; and what is its own, such as its seed's. Besides, what is still missing before the
    end: in all alike, by strategy, and by parameters within it, each in proportion to how unfinished the training is. Over
    parameters covariances are Matérn's of smoothness 5/2.

    Attributes:
        lengths: float[d], length scales of the parameters' columns.
        variances: float[7], of the parts.
        noise: variance of a value that is measured again, on top of its known error.
        shared: the columns that all strategies have.

    Source:
        Rasmussen and Williams 2006, sections 4.2 and 5.4; shortfalls that are added to the end: Kennedy and O'Hagan 2000.
    """

    lengths: Floats
    variances: Floats
    noise: float
    shared: tuple[int, ...]

    @classmethod
    def fit(cls, places: Places, values: Floats, errors: Floats, shared: tuple[int, ...]) -> Self:
        """The most probable ones.

        Args:
            places: of trainings.
            values: float[n], what was measured there.
            errors: float[n], standard errors.
            shared: the columns that all strategies have.
        """
        centred, scale = _standardised(values)
        num_columns = places.shares.shape[1]
        medians, widths = np.array([LENGTH] * num_columns + [VARIANCE] * NUM_PARTS + [NOISE]).T

        def loss(logs: Floats) -> tuple[float, Floats]:
            scales = cls._of(logs, shared)
            likelihood, gradient = scales._negative_log_likelihood(places, centred, errors / scale)
            away = (logs - np.log(medians)) / widths
            return likelihood + 0.5 * float(away @ away), gradient + away / widths

        bounds = np.log(medians)[:, np.newaxis] + 4 * widths[:, np.newaxis] * np.array([-1.0, 1.0])
        optimum = minimize(
            loss, np.log(medians), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MOST_STEPS}
        )
        return cls._of(optimum.x, shared)

    @classmethod
    def _of(cls, logs: Floats, shared: tuple[int, ...]) -> Self:
        values = np.exp(logs)
        parts = slice(-1 - NUM_PARTS, -1)
        return cls(
            lengths=values[: -1 - NUM_PARTS], variances=values[parts], noise=float(values[-1]), shared=tuple(shared)
        )

    def covariance(self, first: Places, second: Places) -> Floats:
        """float[n, m]: of the true values at two sets of places."""
        parts = self._parts(first, second)
        covariance: Floats = self.variances[0] * parts[0]
        for variance, part in zip(self.variances[1:], parts[1:], strict=True):
            covariance += variance * part
        return covariance

    def variance(self, places: Places) -> Floats:
        """float[n]: of the true values, before anything was measured."""
        lasting = self.variances[:NUM_LASTING].sum() - self.variances[LUCK] * (places.trials == NO_TRAINING)
        variance: Floats = lasting + self.variances[NUM_LASTING:].sum() * places.unfinished**2
        return variance

    def measured(self, places: Places, errors: Floats) -> Floats:
        """float[n, n]: covariance of what is measured with those standard errors."""
        return self.covariance(places, places) + np.diag(errors**2 + self.noise + JITTER)

    def _apart(self, first: Places, second: Places, columns: Sequence[int] | slice = slice(None)) -> Floats:
        """float[n, m]: squared distances over some columns, all unless it is said."""
        a, b = (places.shares[:, columns] / self.lengths[columns] for places in (first, second))
        squares: Floats = np.maximum((a**2).sum(axis=1)[:, np.newaxis] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
        return squares

    def _parts(self, first: Places, second: Places) -> list[Floats]:
        same = first.strategies[:, np.newaxis] == second.strategies
        late = np.multiply.outer(first.unfinished, second.unfinished)
        within = same * _matern(self._apart(first, second))
        common = _matern(self._apart(first, second, list(self.shared)))
        identity = (first.trials[:, np.newaxis] == second.trials) & (second.trials != NO_TRAINING)
        return [same, common, within, identity, late, late * same, late * within]

    def _negative_log_likelihood(self, places: Places, values: Floats, errors: Floats) -> tuple[float, Floats]:
        """That of standardised values, up to a constant, and its gradient by the logarithms of all scales."""
        parts = self._parts(places, places)
        factor = cho_factor(self.measured(places, errors), lower=True)
        solved = cho_solve(factor, values)
        slopes = 0.5 * (cho_solve(factor, np.eye(len(values))) - np.outer(solved, solved))
        loss = 0.5 * float(values @ solved) + float(np.log(np.diag(factor[0])).sum())
        by_variance = self.variances * np.array([np.vdot(part, slopes) for part in parts])
        by_noise = self.noise * np.trace(slopes)
        return loss, np.concatenate([self._by_length(places, slopes), by_variance, [by_noise]])

    def _by_length(self, places: Places, slopes: Floats) -> Floats:
        """float[d]: the loss's derivative by the logarithm of each length scale, from that by each covariance."""
        shared = list(self.shared)
        same = places.strategies[:, np.newaxis] == places.strategies
        late = np.multiply.outer(places.unfinished, places.unfinished)
        slope = _matern_slope(self._apart(places, places))
        within = slopes * same * slope * (self.variances[2] + self.variances[6] * late)
        common = slopes * self.variances[1] * _matern_slope(self._apart(places, places, shared))
        shares = places.shares / self.lengths
        gradient = _weighted_squares(within, shares)
        gradient[shared] += _weighted_squares(common, shares[:, shared])
        return gradient


class Surrogate:
    """A Gaussian process that has seen what was measured."""

    def __init__(self, places: Places, values: Floats, errors: Floats, scales: Scales) -> None:
        """Learn from measured values.

        Args:
            places: of trainings.
            values: float[n], what was measured there.
            errors: float[n], standard errors.
            scales: the covariance, of standardised values.
        """
        self._places, self._scales = places, scales
        self._mean, self._unit = float(values.mean()), _standardised(values)[1]
        self._root = np.linalg.cholesky(scales.measured(places, errors / self._unit))
        self._seen = solve_triangular(self._root, _standardised(values)[0], lower=True)

    def predict(self, places: Places) -> tuple[Floats, Floats]:
        """float[n] each: mean and standard deviation of the true values there."""
        half = self._half(places)
        left = np.maximum(self._scales.variance(places) - (half**2).sum(axis=0), 0.0)
        mean: Floats = half.T @ self._seen * self._unit + self._mean
        return mean, np.sqrt(left) * self._unit

    def draw(self, kept: Places, others: Places, normals: Floats) -> tuple[Floats, Floats]:
        """True values as they might be, together at some places, and at each of others given those.

        Args:
            kept: n places.
            others: m places.
            normals: float[k, n + m], standard normal numbers.

        Returns:
            float[k, n] and float[k, m].
        """
        half, half_others = self._half(kept), self._half(others)
        left = self._scales.covariance(kept, kept) - half.T @ half
        root = np.linalg.cholesky(left + JITTER * self._scales.variances.sum() * np.eye(len(kept)))
        cross = solve_triangular(root, self._scales.covariance(kept, others) - half.T @ half_others, lower=True)
        variances = self._scales.variance(others) - (half_others**2).sum(axis=0) - (cross**2).sum(axis=0)
        first, second = np.split(normals, [len(kept)], axis=1)
        drawn = self._seen @ half + first @ root.T
        drawn_others = self._seen @ half_others + first @ cross + second * np.sqrt(np.maximum(variances, 0.0))
        return drawn * self._unit + self._mean, drawn_others * self._unit + self._mean

    def _half(self, places: Places) -> Floats:
        """float[seen, n]: the covariances with what was seen, in its own independent directions."""
        solution: Floats = solve_triangular(self._root, self._scales.covariance(self._places, places), lower=True)
        return solution


def _standardised(values: Floats) -> tuple[Floats, float]:
    """Values of mean 0 and variance 1, and the unit that they were divided by; 1 where they do not differ."""
    unit = float(values.std()) or 1.0
    return (values - values.mean()) / unit, unit


def _weighted_squares(weights: Floats, shares: Floats) -> Floats:
    """float[d]: sum over pairs of rows of their symmetric weight times their squared difference in a column."""
    sums: Floats = 2 * (weights.sum(axis=1) @ shares**2 - (shares * (weights @ shares)).sum(axis=0))
    return sums


def _matern(squared: Floats) -> Floats:
    distance = np.sqrt(5 * squared)
    correlation: Floats = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return correlation


def _matern_slope(squared: Floats) -> Floats:
    """What multiplies a column's squared distance in the derivative by the logarithm of its length scale."""
    distance = np.sqrt(5 * squared)
    slope: Floats = 5 / 3 * (1 + distance) * np.exp(-distance)
    return slope
