"""What a replayed search finds out: pools of learning curves, recorded ones and ones made by a formula."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from analysis.front.hypervolume import comparable, hypervolume, nadir
from analysis.front.pareto import Objective
from analysis.studies.rung_agreement import STANDARD_ERROR
from benchmarks.recordings import Curve, Point, read_recording
from benchmarks.recordings.draws import configurations
from search_spaces import SEARCH_SPACES
from sweep.search.history import rung_name
from sweep.search.plan import SearchPlan
from sweep.trials.ends import FAILURE, FINAL

SPACE: Final = "mini"
OBJECTIVES: Final = (
    Objective("fid_mini", "min"),
    Objective("vendi_mini", "max"),
    Objective("trainable_parameters", "min"),
    Objective("epoch_s", "min"),
)
DIRECTIONS: Final = [objective.direction for objective in OBJECTIVES]
RUNGS: Final = (1, 3)
NUM_EPOCHS: Final = 9


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a training has come to.

    Attributes:
        training_s: seconds of training behind it.
        evaluation_s: seconds that its own evaluation takes.
        report: what a trial would report.
    """

    training_s: float
    evaluation_s: float
    report: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A learning curve that answers a suggestion: its rungs in their order, and its end as the last stage."""

    strategy: str
    params: Mapping[str, Any]
    stages: tuple[Stage, ...]
    true_values: Sequence[float] | None = None
    """The objectives at its end without the errors of measuring, where a formula gives them."""

    @property
    def values(self) -> list[float]:
        """The objectives at its end, true ones where they are known; NaN where it failed."""
        if self.true_values is not None:
            return list(self.true_values)
        return [float(self.stages[-1].report.get(objective.name, math.nan)) for objective in OBJECTIVES]


Answer = Callable[[str, Mapping[str, Any]], Training | None]
"""The training that answers a suggestion: a strategy with its parameters."""


@dataclass(frozen=True)
class Problem:
    """A pool of trainings of some strategies of the mini space, and how good it is as a whole.

    Attributes:
        name: for the reader.
        pool: what a search is measured by.
        formula: gives the training of any configuration; None: suggestions are answered from the pool.
        known: by objective, the costs of a choice of the space that are known before it is trained.
    """

    name: str
    pool: Sequence[Training]
    formula: Callable[[str, Mapping[str, Any]], Training] | None = None
    known: Callable[[Mapping[str, Any]], Mapping[str, float]] = lambda choice: {}

    def answers(self) -> tuple[Answer, Callable[[str], bool]]:
        """What answers one search's suggestions, and whether it still can those of a strategy."""
        if self.formula is not None:
            return self.formula, lambda strategy: True
        pool = Pool(self)
        return pool.take, pool.has

    @property
    def strategies(self) -> tuple[str, ...]:
        """In the order in which the pool has them."""
        return tuple(dict.fromkeys(training.strategy for training in self.pool))

    def plan(self) -> SearchPlan:
        """The spaces of the strategies."""
        return SearchPlan.of(SEARCH_SPACES[SPACE], self.strategies, {}, num_trials=len(self.pool), seed=0)

    @cached_property
    def reference(self) -> NDArray[np.float64]:
        """The reference point of every hypervolume: a tenth beyond the nadir of the whole pool's front."""
        return nadir(comparable([training.values for training in self.pool], OBJECTIVES), DIRECTIONS)

    def volume(self, values: Sequence[Sequence[float]]) -> float:
        """Hypervolume of finished trainings as a share of the whole pool's."""
        return self._volume(values) / self._whole

    @cached_property
    def _whole(self) -> float:
        return self._volume([training.values for training in self.pool])

    def _volume(self, values: Sequence[Sequence[float]]) -> float:
        return hypervolume(comparable(values, OBJECTIVES), DIRECTIONS, self.reference)


class Pool:
    """A problem's trainings that one search has not taken yet."""

    def __init__(self, problem: Problem) -> None:
        """All of them are left."""
        self._left = list(problem.pool)
        self._spaces = problem.plan().spaces

    def has(self, strategy: str) -> bool:
        """Whether a training of the strategy is left."""
        return any(training.strategy == strategy for training in self._left)

    def take(self, strategy: str, params: Mapping[str, Any]) -> Training | None:
        """The nearest training of the same strategy that is left, if one is: no suggestion is answered twice alike."""
        candidates = [training for training in self._left if training.strategy == strategy]
        if not candidates:
            return None
        nearest = min(candidates, key=lambda training: self._distance(strategy, training.params, params))
        self._left.remove(nearest)
        return nearest

    def _distance(self, strategy: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
        """Sum over parameters of their differences as shares of the range; 1 where names differ."""
        total = 0.0
        for name, distribution in self._spaces[strategy].items():
            a, b = first[name], second[name]
            if not isinstance(distribution, CategoricalDistribution):
                low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
                total += abs(math.log(a / b)) / math.log(high / low)
            elif all(isinstance(choice, int | float) for choice in distribution.choices):
                places = [distribution.choices.index(value) for value in (a, b)]
                total += abs(places[0] - places[1]) / max(1, len(distribution.choices) - 1)
            else:
                total += float(a != b)
        return total


def recorded(folder: Path) -> Problem:
    """The trainings of a recording, the first seed of each configuration; rungs by the fewer films, the end by all."""
    recording = read_recording(folder)
    few, every = recording.image_counts
    curves = [training for training in recording.trained(seed=0) if training.points]
    return Problem(folder.name, [_of_curve(curve, recording.rungs, few=few, every=every) for curve in curves])


def _of_curve(curve: Curve, rungs: Sequence[int], *, few: int, every: int) -> Training:
    low = [_stage(point, early=True) for epoch in rungs[:-1] if (point := curve.at(epoch, few))]
    last = curve.at(rungs[-1], every)
    end = _failed(curve) if last is None else _stage(last, early=False)
    return Training(strategy=curve.strategy, params=curve.params, stages=(*low, end))


def _failed(curve: Curve) -> Stage:
    return Stage(training_s=curve.points[-1].training_cpu_s, evaluation_s=0.0, report={FAILURE: curve.failure})


def _stage(point: Point, *, early: bool) -> Stage:
    measured = {"trainable_parameters": point.trainable_parameters, "epoch_s": point.training_cpu_s / point.epoch}
    for objective in OBJECTIVES:
        if score := point.scores.get(objective.name):
            measured |= _reported(objective, score.value, score.se_generated, early=early)
    report = {"epoch": point.epoch - 1, FINAL: not early, **measured}
    return Stage(training_s=point.training_cpu_s, evaluation_s=point.evaluation_cpu_s, report=report)


def _reported(objective: Objective, value: float, error: float, *, early: bool) -> dict[str, float]:
    """A metric as a sweep's trial reports it: at a rung with its standard error, at the end without."""
    name = rung_name(objective)
    return {name: value, f"{name}{STANDARD_ERROR}": error} if early else {objective.name: value}


SYNTHETIC: Final = ("lora", "unet", "bitfit", "dora", "textual_inversion", "adalora", "norm", "attention")
EVALUATION_S: Final = {True: 6.4, False: 22.0}
"""Of a rung and of the end, as recorded on the NIH films."""
BIAS: Final = {True: 8.0, False: 0.0}
"""Of a Fréchet distance of fewer films."""
ERRORS: Final = {True: (3.0, 0.25), False: (1.5, 0.12)}
"""Standard errors of distance and diversity."""


def synthetic(seed: int, num: int) -> Problem:
    """A conditional DTLZ2 with learning curves: each strategy has a cost, a best learning rate, and a pace of its own.

    Fréchet distance 10 + 50 (1 + g) cos(a) cos(b), Vendi score 6 - 4 (1 + g) cos(a) sin(b), parameters
    10^(3 + 3 sin(a)): a is the strategy's, and grows with the rank; b goes with the batch and the other choices; g falls
    with the epochs t as (t / 9)^-pace, to the square of the learning rate's distance from the best one, with the
    strategy's own shortcoming on top. Fast strategies end worse. No recording has entered into it.

    Args:
        seed: of the family's member.
        num: trainings of the pool, of all strategies together.

    Source:
        Deb et al. 2005 (DTLZ2).
    """
    space, per_strategy = SEARCH_SPACES[SPACE], -(-num // len(SYNTHETIC))
    answer = partial(_answered, seed)
    drawn = [training for strategy in SYNTHETIC for training in configurations(space, strategy, per_strategy, seed)]
    pool = [answer(training.strategy, training.params) for training in drawn]
    return Problem(f"synthetic-{seed}", pool, answer, partial(_parameters, seed))


def _parameters(seed: int, choice: Mapping[str, Any]) -> Mapping[str, float]:
    """The trainable parameters of a choice in a member of the family."""
    strategy = choice["strategy"]
    return {"trainable_parameters": _world(seed, strategy["name"]).parameters(strategy.get("rank", 2))}


@cache
def _world(seed: int, strategy: str) -> _World:
    return _World(np.random.default_rng((seed, *strategy.encode())))


def _answered(seed: int, strategy: str, params: Mapping[str, Any]) -> Training:
    """The training of a configuration in a member of the family, the same each time."""
    text = json.dumps([strategy, params], sort_keys=True)
    noise = np.random.default_rng((seed, zlib.crc32(text.encode())))
    world = _world(seed, strategy)
    stages = tuple(world.stages(params, noise))
    return Training(strategy=strategy, params=params, stages=stages, true_values=world.true_values(params))


class _World:
    """What is the case for one strategy."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.angle, self.best, self.pace = rng.uniform(0.05, 0.75), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.9)
        self.shortcoming = 0.3 * rng.random() * (1 - self.pace)
        self.epoch_s = 8 + 16 * self.angle

    def stages(self, params: Mapping[str, Any], noise: np.random.Generator) -> Iterator[Stage]:
        """Rungs and end of a training."""
        known = self._known(params)
        known["epoch_s"] *= noise.normal(1, 0.03)
        for epoch in (*RUNGS, NUM_EPOCHS):
            yield self._stage(epoch, known, self._scores(params, epoch), noise)

    def true_values(self, params: Mapping[str, Any]) -> list[float]:
        """The objectives at the end."""
        return [*self._scores(params, NUM_EPOCHS), *self._known(params).values()]

    def _known(self, params: Mapping[str, Any]) -> dict[str, float]:
        shares = _by_field(params)
        epoch_s = self.epoch_s * (1.2 - 0.2 * shares["batch_size"] / 32)
        return {"trainable_parameters": self.parameters(shares.get("rank", 2)), "epoch_s": epoch_s}

    def parameters(self, rank: int) -> int:
        """Trainable parameters at a rank; what has none counts as rank 2."""
        return round(10 ** (3 + 3 * math.sin(self._angle(rank))))

    def _angle(self, rank: int) -> float:
        return (self.angle + 0.2 * math.log2(rank) / 5) * math.pi / 2

    def _scores(self, params: Mapping[str, Any], epoch: int) -> tuple[float, float]:
        """Fréchet distance and Vendi score."""
        shares = _by_field(params)
        batch, others = shares["batch_size"] / 32, float(shares.get("alpha_ratio", 2.0)) / 4
        a, b = (
            self._angle(shares.get("rank", 2)),
            np.clip(0.2 + 0.4 * batch + 0.3 * others - 0.3 * self.pace, 0, 1) * math.pi / 2,
        )
        span = math.log10(shares["lr"] / 1e-4) / 3
        g = 4 * (span - self.best) ** 2 + self.shortcoming + 0.15 * ((epoch / NUM_EPOCHS) ** -self.pace - 1)
        return 10 + 50 * (1 + g) * math.cos(a) * math.cos(b), 6 - 4 * (1 + g) * math.cos(a) * math.sin(b)

    def _stage(
        self, epoch: int, known: Mapping[str, float], exact: tuple[float, float], noise: np.random.Generator
    ) -> Stage:
        early = epoch < NUM_EPOCHS
        measured: dict[str, float] = {}
        for objective, error, value in zip(OBJECTIVES[:2], ERRORS[early], exact, strict=True):
            bias = BIAS[early] if objective.name == OBJECTIVES[0].name else 0.0
            measured |= _reported(objective, value + bias + noise.normal(0, error), error, early=early)
        report = {"epoch": epoch - 1, FINAL: not early, **known, **measured}
        return Stage(training_s=epoch * known["epoch_s"], evaluation_s=EVALUATION_S[early], report=report)


def _by_field(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name.rpartition("/")[2]: value for name, value in params.items()}
