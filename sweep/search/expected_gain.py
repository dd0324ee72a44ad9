"""The search sampler of our own: try next what is expected to add most to the front's hypervolume for its cost.

One Gaussian process an objective learns from all strategies' trials at their rungs and ends. Of trainable parameters, which
are counted beforehand, it learns no more than how training changes them. Trials that still run count with what the model
expects of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from scipy.stats.qmc import Sobol

from analysis.front.hypervolume import MARGIN
from analysis.front.objectives import COSTS, OPERATIONS
from analysis.front.pareto import pareto_mask
from sweep.search.history import Tried
from sweep.search.plan import SearchPlan, Values
from sweep.search.surrogate import NO_TRAINING, Places, Scales, Surrogate
from sweep.search.turns import has_order, share_at, value_at

Floats = NDArray[np.float64]
Config = tuple[str, Values]

FEWEST: Final = 4
"""Trials that have values, if only of a rung, from which on there is a model; before, configurations are drawn."""
DRAWN: Final = 24
"""Candidates of each strategy that are drawn from its whole space."""
NEARBY: Final = 24
"""Candidates of each strategy of the front that lie near its points there."""
STEP: Final = 0.15
"""Width of a step to a nearby candidate, as a share of a parameter's range."""
CHANGED: Final = 0.25
"""Probability that a choice without an order is drawn anew in such a step."""
WORLDS: Final = 16
"""Joint draws of all that is uncertain, over which a candidate's gain is averaged."""
LOG_POINTS: Final = 11
"""Base-2 logarithm of the points that measure hypervolumes."""
FENCE: Final = 3.0
"""Interquartile ranges above the upper quartile beyond which a value counts as the fence (Tukey 1977, far out)."""
SCALE_STEPS: Final = 1.2
"""The model's scales are fitted anew when there are a fifth more trials."""
MOST_FOR_SCALES: Final = 100
"""The first trials that give the model its scales in a long search: a fit takes as long as the cube of what it is given."""
ROUNDING: Final = 1e-9
"""A cost's logarithm that differs from what was known of it by no more than this does so by rounding."""
PRICES: Final = ("epoch_s", OPERATIONS)
"""Objectives by which one training costs more than another, the best first."""


def most_gainful(plan: SearchPlan, enqueued: str | None) -> Config:
    """A strategy, unless one is given, and its parameters.

    The last trials of a sweep are for strategies of which none has come to its end.

    Args:
        plan: the search, with its history.
        enqueued: the strategy to choose parameters for.
    """
    rng = np.random.default_rng(plan.trial_seed)
    if enqueued:
        return _central(plan, enqueued, rng)
    if sum(tried.has_values for tried in plan.history) < FEWEST:
        return _drawn(plan, plan.strategies[plan.number % len(plan.strategies)], rng)
    model = FrontModel.of(plan)
    candidates = model.candidates(rng)
    if not candidates:
        return _drawn(plan, plan.strategies[int(rng.integers(len(plan.strategies)))], rng)
    owed = plan.owed()
    if len(owed) >= plan.num_trials - plan.number:  # all trials that are left are needed for them
        candidates = [config for config in candidates if config[0] in owed] or candidates
    return candidates[int(np.argmax(model.gains(candidates, rng)))]


def _central(plan: SearchPlan, strategy: str, rng: np.random.Generator) -> Config:
    """What is tried of a strategy first: continuous ranges lie around what is known to work, so the middle of each."""
    return strategy, {
        name: value_at(0.5 if isinstance(distribution, FloatDistribution) else rng.random(), distribution)
        for name, distribution in plan.spaces[strategy].items()
    }


def _drawn(plan: SearchPlan, strategy: str, rng: np.random.Generator) -> Config:
    return strategy, {
        name: value_at(rng.random(), distribution) for name, distribution in plan.spaces[strategy].items()
    }


def _nearby(plan: SearchPlan, tried: Tried, rng: np.random.Generator) -> Config:
    values = {}
    for name, distribution in plan.spaces[tried.strategy].items():
        if has_order(distribution):
            share = share_at(tried.params[name], distribution) + rng.normal(0, STEP)
            values[name] = value_at(min(max(float(share), 0.0), 1 - 1e-9), distribution)
        else:
            values[name] = value_at(rng.random(), distribution) if rng.random() < CHANGED else tried.params[name]
    return tried.strategy, values


class Encoding:
    """Parameters of all strategies as columns of numbers: one for what has an order, one a choice for what has none.

    Those that strategies have under one name share a column: `lora/rank` and `dora/rank` are both `rank`. The learning rates
    of a combination's further parts have columns of their own.
    """

    def __init__(self, plan: SearchPlan) -> None:
        """Lay out the columns of a search's spaces."""
        self._spaces, self._strategies = plan.spaces, plan.strategies
        rows = {
            name: self._columns(space, {key: value_at(0.0, distribution) for key, distribution in space.items()})
            for name, space in plan.spaces.items()
        }
        self._names = list(dict.fromkeys(column for row in rows.values() for column in row))
        self.shared = [place for place, column in enumerate(self._names) if all(column in row for row in rows.values())]

    @property
    def num_columns(self) -> int:
        """How many columns there are."""
        return len(self._names)

    def places(
        self, configs: Sequence[Config], numbers: Sequence[int] | None = None, unfinished: Sequence[float] | None = None
    ) -> Places:
        """Where trainings lie, at their end unless it is said how much of them is missing.

        Args:
            configs: strategies and parameters.
            numbers: of the trials; none: what the configurations give, whoever trains them.
            unfinished: of each, 0 at the end and 1 at the first rung.
        """
        rows = [self._columns(self._spaces[strategy], values) for strategy, values in configs]
        return Places(
            trials=np.full(len(rows), NO_TRAINING) if numbers is None else np.array(numbers, np.int64),
            strategies=np.array([self._strategies.index(strategy) for strategy, _ in configs], np.int64),
            shares=np.array([[row.get(name, 0.0) for name in self._names] for row in rows]).reshape(len(rows), -1),
            unfinished=np.zeros(len(rows)) if unfinished is None else np.asarray(unfinished, np.float64),
        )

    def learned(self, places: Places, values: Floats, errors: Floats, early: NDArray[np.bool_]) -> Surrogate:
        """A model of values.

        Args:
            places: of trainings.
            values: float[n], what was measured there.
            errors: float[n], standard errors.
            early: bool[n], which of them give the model its scales; all where none is.
        """
        about = (places.trials, places.strategies, places.unfinished, values, errors)
        rows = np.column_stack([*about, places.shares])
        first = rows[early] if early.any() else rows
        scales = _fitted(first.tobytes(), self.num_columns, tuple(self.shared))
        return Surrogate(places, values, errors, scales)

    def _columns(self, space: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, float]:
        columns = {}
        for name, distribution in space.items():
            short = _column(name)
            if has_order(distribution):
                columns[short] = share_at(values[name], distribution)
            else:
                columns |= {
                    f"{short}={choice}": float(values[name] == choice) / np.sqrt(2) for choice in distribution.choices
                }
        return columns


@cache
def _column(name: str) -> str:
    """`lora/rank` is `rank`, `lora+vae/lora/rank` too; `lora+vae/lr` is `lr`, and `lora+vae/vae/lr` is `vae/lr`."""
    key = name.partition("/")[2]
    return key if key.endswith("/lr") else name.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class FrontModel:
    """What is known of the front, and what could be added to it.

    Attributes:
        plan: the search that the model is of.
        encoding: turns its configurations into numbers.
        surrogates: by the column of an objective the model of what is not known of it; none where all of it is known.
    """

    plan: SearchPlan
    encoding: Encoding
    surrogates: Mapping[int, Surrogate]

    @classmethod
    def of(cls, plan: SearchPlan) -> FrontModel:
        """Learn from a search's history; scales from its beginning, so that they are not fitted for each trial."""
        encoding = Encoding(plan)
        seen = [(tried, measured) for tried in plan.history for measured in tried.measured]
        rungs = [measured.epochs for _, measured in seen if np.isfinite(measured.epochs)]
        places = encoding.places(
            [(tried.strategy, tried.params) for tried, _ in seen],
            [tried.number for tried, _ in seen],
            [_missing(measurement.epochs, rungs) for _, measurement in seen],
        )
        values, errors = (
            np.array([getattr(measurement, name) for _, measurement in seen]) for name in ("values", "errors")
        )
        early = np.array([tried.number < _beginning(plan.number) and not tried.is_open for tried, _ in seen])
        values = values - _known(plan, [(tried.strategy, tried.params) for tried, _ in seen])
        surrogates = {}
        for column, objective in enumerate(plan.objectives):
            has = ~np.isnan(values[:, column])
            targets = values[has, column] if objective.name in COSTS else _fenced(values[has, column])
            if np.any(np.abs(targets) > ROUNDING):
                surrogates[column] = encoding.learned(places.only(has), targets, errors[has, column], early[has])
        return cls(plan=plan, encoding=encoding, surrogates=surrogates)

    def candidates(self, rng: np.random.Generator) -> list[Config]:
        """Configurations within all limits: from everywhere and, where results lead, near those expected on the front.

        Args:
            rng: draws them.
        """
        configs, front = [], self._expected_front() if self.plan.is_led else []
        for strategy in self.plan.strategies:
            configs += [_drawn(self.plan, strategy, rng) for _ in range(DRAWN)]
            points = [tried for tried in front if tried.strategy == strategy]
            chosen = rng.integers(len(points), size=NEARBY) if points else ()
            configs += [_nearby(self.plan, points[place], rng) for place in chosen]
        return [config for config in configs if self.plan.is_within(*config)]

    def _expected_front(self) -> list[Tried]:
        """The trials that would be on the front if all that did not fail had come to their end, stopped ones too."""
        tried = [each for each in self.plan.history if each.measured and np.isfinite(each.measured[-1].values).all()]
        configs = [(each.strategy, each.params) for each in tried]
        places, ends = self.encoding.places(configs), _known(self.plan, configs)
        for column, surrogate in self.surrogates.items():
            ends[:, column] += surrogate.predict(places)[0]
        mask = pareto_mask(ends, ["min"] * ends.shape[1])
        return [each for each, is_on in zip(tried, mask, strict=True) if is_on]

    def gains(self, candidates: Sequence[Config], rng: np.random.Generator) -> Floats:
        """float[n]: what each would add to the front's hypervolume by the cost of its training, on the average over worlds.

        Args:
            candidates: strategies and parameters.
            rng: draws the worlds.
        """
        kept = [tried for tried in self.plan.history if _counts(tried)]
        worlds = self._worlds(kept, [], candidates, rng)
        return _gains(worlds, len(kept), _points(worlds)) / self._prices(worlds[:, len(kept) :])

    def gains_beside(
        self, trial: Tried, candidates: Sequence[Config], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """What a trial that runs would add to the front, and what each candidate would add besides.

        Args:
            trial: of the history.
            candidates: n strategies and parameters.
            rng: draws the worlds.

        Returns:
            float[1 + n] each, the trial first: the gains, and what a whole training costs.
        """
        kept = [tried for tried in self.plan.history if _counts(tried) and tried is not trial]
        worlds, num = self._worlds(kept, [trial], candidates, rng), len(kept)
        points = _points(worlds)
        gains = [_gains(worlds[:, : num + 1], num, points), _gains(worlds, num + 1, points)]
        return np.concatenate(gains), self._prices(worlds[:, num:])

    def _worlds(
        self, kept: Sequence[Tried], running: Sequence[Tried], candidates: Sequence[Config], rng: np.random.Generator
    ) -> Floats:
        """float[k, n, m]: objectives of the configurations that are kept, of trials with their luck, of candidates, in each world."""
        configs = [(tried.strategy, tried.params) for tried in (*kept, *running)]
        numbers = [*[NO_TRAINING] * len(kept), *[tried.number for tried in running]]
        places, others = self.encoding.places(configs, numbers), self.encoding.places(candidates)
        worlds = np.tile(_known(self.plan, [*configs, *candidates]), (WORLDS, 1, 1))
        for column, surrogate in self.surrogates.items():
            normals = rng.standard_normal(worlds.shape[:2])
            worlds[..., column] += np.hstack(surrogate.draw(places, others, normals))
        return worlds

    def _prices(self, worlds: Floats) -> Floats:
        """float[n]: what trainings cost beside each other: by seconds an epoch, else by operations, else all the same."""
        values = worlds.mean(axis=0)
        names = [objective.name for objective in self.plan.objectives]
        priced = next((names.index(name) for name in PRICES if name in names), None)
        return np.ones(len(values)) if priced is None else np.power(10.0, values[:, priced])


def _counts(tried: Tried) -> bool:
    """Whether a trial is on the front, or may come to be."""
    return tried.is_open or tried.end is not None


def _points(worlds: Floats) -> Floats:
    """float[k, m]: points that measure a box, which reaches to a tenth beyond the nadir of the front of all means."""
    mean = worlds.mean(axis=0)
    front = mean[pareto_mask(mean, ["min"] * mean.shape[1])]
    worst = front.max(axis=0) + MARGIN * np.ptp(front, axis=0)
    best = np.quantile(worlds, 0.001, axis=(0, 1))
    points: Floats = best + (worst - best) * Sobol(worlds.shape[2], rng=np.random.default_rng(0)).random_base2(
        LOG_POINTS
    )
    return points


def _gains(worlds: Floats, num_kept: int, points: Floats) -> Floats:
    """float[n]: the share of points that each candidate reaches and nothing that is kept does, on the average of worlds.

    Args:
        worlds: float[k, n, m], objectives of what is kept first, of candidates after it.
        num_kept: how many are kept.
        points: float[k, m].
    """
    gains = np.zeros(worlds.shape[1] - num_kept)
    for world in worlds:
        kept, others = np.split(world, [num_kept])
        hopeful = ~_reaches(kept, others).any(axis=0)
        left = points[~_reaches(kept, points).any(axis=0)]
        gains[hopeful] += _reaches(others[hopeful], left).sum(axis=1) / len(points)
    return gains / len(worlds)


def _reaches(values: Floats, points: Floats) -> NDArray[np.bool_]:
    """bool[n, k]: which of n rows is as good as which of k points, in every objective."""
    reached = np.ones((len(values), len(points)), np.bool_)
    for column, other in zip(values.T.astype(np.float32), points.T.astype(np.float32), strict=True):
        reached &= column[:, np.newaxis] <= other
    return reached


def _known(plan: SearchPlan, configs: Sequence[Config]) -> Floats:
    """float[n, m]: what is known of each objective before a training; 0 where nothing is.

    A strategy whose parameters change in training, such as AdaLoRA, ends at others: what is learned is the difference.
    """
    known = [plan.known(*config) for config in configs]
    return np.array([[costs.get(objective.name, 0.0) for objective in plan.objectives] for costs in known])


def _missing(epochs: float, rungs: Sequence[float]) -> float:
    """How much of a training is missing at a rung: 1 at the first, 0 at the end, and even steps between."""
    steps = sorted(set(rungs))
    return 1 - steps.index(epochs) / len(steps) if np.isfinite(epochs) else 0.0


def _fenced(values: Floats) -> Floats:
    """Values to be minimised without far outliers, which would flatten all others for a model of even smoothness.

    What failed counts as that fence.
    """
    lower, upper = np.quantile(values[np.isfinite(values)], [0.25, 0.75])
    fenced: Floats = np.minimum(values, upper + FENCE * max(upper - lower, 1e-9))
    return fenced


def _beginning(number: int) -> int:
    """How many of the first trials give the model its scales."""
    steps = int(np.log(max(number, 1)) / np.log(SCALE_STEPS))
    return min(max(FEWEST, int(SCALE_STEPS**steps)), MOST_FOR_SCALES)


@lru_cache(maxsize=64)
def _fitted(rows: bytes, num_columns: int, shared: tuple[int, ...]) -> Scales:
    """Scales of a model of the rows' places, values and errors: the same ones for each suggestion until there are more."""
    about, shares = np.split(np.frombuffer(rows).reshape(-1, 5 + num_columns), [5], axis=1)
    trials, strategies, unfinished, values, errors = about.T
    places = Places(
        trials=trials.astype(np.int64), strategies=strategies.astype(np.int64), unfinished=unfinished, shares=shares
    )
    return Scales.fit(places, values, errors, shared)
