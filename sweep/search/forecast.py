"""What a sweep will cost, as far as shapes and counts tell before it starts: the plan that `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Final

from analysis.front.objectives import OPERATIONS
from search_spaces import SEARCH_SPACES
from sweep.config import SweepConfig
from sweep.preflight import check_limits, images_of_conditions, limits_of
from sweep.presets.expected_films import EXPECTED
from sweep.records.tables import Past
from sweep.scoring.plans import conditions_to_score, require_known_conditions
from sweep.scoring.rungs import at_rung
from sweep.search.costs import Choice, first_and_last
from sweep.search.ladder import Ladder
from sweep.search.stopping import never_stopped
from trainables.base_models.models import HUB_IDS, resolve_base
from trainables.base_models.shapes import base_on_meta, state_of_shapes
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.settings import evaluates_after
from trainables.strategies import make_strategy
from trainables.strategies.operations import FilmOperations, operations_per_film

TERA: Final = 1e12
SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, kw_only=True)
class StrategyCosts:
    """What one strategy costs, from the least to the most of its choices.

    Attributes:
        strategy: the name of the strategy.
        trainable_parameters: least and most, when training begins.
        adapter_mib: least and most, of the adapter's file.
        operations_per_image: least and most, floating-point operations of a training image.
        batch_size: least and most.
        adapters: least and most that one training gives, each of which is evaluated at the end: its own and its cuts.
    """

    strategy: str
    trainable_parameters: tuple[float, float]
    adapter_mib: tuple[float, float]
    operations_per_image: tuple[float, float]
    batch_size: tuple[float, float]
    adapters: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How many films a trial sees and makes.

    Attributes:
        num_train: films of the training split.
        num_held_out: by scored condition, the most films that one evaluation generates for it.
        conditions: all that the data have, scored or not.
        expected: where the counts are from, where the films are not prepared yet.
    """

    num_train: int
    num_held_out: Mapping[str, int]
    conditions: tuple[str, ...]
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Costs of a sweep, in means over the strategies that its trials try.

    Attributes:
        strategies: those that can meet the limits.
        training: operations of a complete trial's training, least and most.
        evaluation: of its evaluations, likewise.
        adapter_mib: of a complete trial's adapters, the most.
        stopped: operations of the training and of the evaluations of a trial that is stopped as soon as its strategy's
            may be, the least; as of a complete one where none may be.
        num_trials: of the sweep that have not ended yet; what those under way have done is not taken off.
        stopped_share: of the training of a trial that is stopped as soon as its strategy's may be.
        training_s: seconds of a complete trial's training, where the clock decides; its operations then count as none.
        num_whole: how many trials are trained to the end at least: those that no rung compares as few have reached
            it, and with most trial schedulers one of each strategy.
    """

    strategies: tuple[StrategyCosts, ...]
    training: tuple[float, float]
    evaluation: tuple[float, float]
    adapter_mib: float
    stopped: tuple[float, float]
    num_trials: int
    num_whole: int
    stopped_share: float = 1.0
    training_s: float = 0.0

    def operations(self, num_workers: int = 1) -> tuple[float, float]:
        """The operations of all trials, spread evenly over the strategies.

        Args:
            num_workers: that share a trial's training, of which those of one are counted; evaluations are not shared.

        Returns:
            What they take where all that may be are stopped as soon as they may be and cost least, and where none is
            stopped and all cost most.
        """
        least, most = (
            training / num_workers + evaluation
            for training, evaluation in zip(self.training, self.evaluation, strict=True)
        )
        training, evaluation = self.stopped
        num_stopped = self.num_trials - self.num_whole
        return (
            self.num_whole * least + num_stopped * (training / num_workers + evaluation),
            self.num_trials * most,
        )

    def hours(self, tflops: float, num_workers: int = 1) -> tuple[float, float]:
        """Hours of all trials one after the other, least and most.

        Args:
            tflops: that one worker sustains, in TFLOP/s.
            num_workers: that share a trial's training.
        """
        least, most = (count / (tflops * TERA * SECONDS_PER_HOUR) for count in self.operations(num_workers))
        clock = self.training_s / SECONDS_PER_HOUR
        stopped = (self.num_trials - self.num_whole) * self.stopped_share
        return least + (self.num_whole + stopped) * clock, most + self.num_trials * clock


def workload(config: SweepConfig) -> Workload | None:
    """The films of a sweep; where they are not prepared yet, those that a published study expects, for others none.

    Raises:
        ValueError: the data do not show a condition that is to be scored.
    """
    data = config.data
    if data.source == "phantom":
        source = PhantomSource(num_patients=data.num_patients, resolution_px=data.resolution_px, seed=data.seed)
        require_known_conditions(data.conditions or (), source.conditions)
        most = config.evaluation.images_per_condition
        return Workload(
            num_train=source.num_samples("train"),
            num_held_out=dict.fromkeys(data.conditions or source.conditions, most),
            conditions=tuple(source.conditions),
        )
    try:
        dataset = PreparedDataset.open(data.path) if data.path is not None else None
    except FileNotFoundError:
        return _expected(config)
    if dataset is None:
        return None
    conditions = conditions_to_score(dataset, config.evaluation.split, data.conditions)
    return Workload(
        num_train=len(dataset.split("train")),
        num_held_out=images_of_conditions(dataset, conditions, config),
        conditions=dataset.conditions,
    )


def _expected(config: SweepConfig) -> Workload | None:
    expected = EXPECTED.get(config.preset)
    if expected is None:
        return None
    scored = config.data.conditions or tuple(expected.num_held_out)
    most = config.evaluation.images_per_condition
    return Workload(
        num_train=expected.num_train,
        num_held_out={name: min(most, expected.num_held_out.get(name, most)) for name in scored},
        conditions=tuple(expected.num_held_out),
        expected=expected.source,
    )


def forecast(config: SweepConfig, films: Workload, past: Past = Past()) -> Forecast:
    """Count what is left to do of a sweep on its base's shapes, which needs no weights.

    Args:
        config: of the sweep, with absolute folders.
        films: that its trials see and make.
        past: what of it is done.

    Raises:
        ConfigError: no strategy can meet the limits.
        FileNotFoundError: the base is not there.
    """
    costs = strategy_costs(config, films.conditions)
    tried = costs[: config.search.num_trials]  # the first trials try one after the other
    num_epochs, ladder = config.training.num_epochs, config.search.ladder(config.training.num_epochs)
    evaluated = [epoch + 1 for epoch in range(num_epochs) if evaluates_after(epoch, config.training, ladder.epochs)]
    spent = _sampling(config, films)
    images = [images_of(config, films.num_train, strategy.batch_size) for strategy in tried]
    low, high = (
        fmean(strategy.operations_per_image[end] * seen[end] for strategy, seen in zip(tried, images, strict=True))
        for end in (0, 1)
    )
    few, many = (fmean(strategy.adapters[end] for strategy in tried) for end in (0, 1))
    early, last = sum(map(spent, evaluated[:-1])), spent(num_epochs)
    num_trials = max(0, config.search.num_trials - past.num_ended)
    unstopped = never_stopped(config.search.scheduler, config.search.sampler, len(costs))
    whole = max(0, min(unstopped, config.search.num_trials) - past.num_completed)
    return Forecast(
        strategies=costs,
        training=(low, high),
        evaluation=(early + few * last, early + many * last),
        adapter_mib=fmean(strategy.adapter_mib[1] * strategy.adapters[1] for strategy in tried),
        stopped=_least_stopped(tried, ladder, images, {epochs: spent(epochs) for epochs in evaluated}),
        stopped_share=fmean(_earliest_stop(strategy.strategy, ladder, num_epochs) for strategy in tried) / num_epochs,
        training_s=config.search.budget.seconds or 0.0,
        num_trials=num_trials,
        num_whole=min(whole, num_trials) if ladder.epochs else num_trials,
    )


def _least_stopped(
    tried: tuple[StrategyCosts, ...],
    ladder: Ladder,
    images: Sequence[tuple[float, float]],
    evaluations: Mapping[int, float],
) -> tuple[float, float]:
    """Operations of the training and of the evaluations of a trial that is stopped as soon as it may be.

    Args:
        tried: what strategies cost.
        ladder: the rungs.
        images: of each strategy, that a complete trial sees in training, least and most.
        evaluations: operations of each, by the epochs that are behind it; the last is that of a complete trial.
    """
    num_epochs, training, evaluation = max(evaluations), [], []
    for costs, (fewest, _) in zip(tried, images, strict=True):
        last = _earliest_stop(costs.strategy, ladder, num_epochs)
        training.append(last * fewest * costs.operations_per_image[0] / num_epochs)
        cuts = (costs.adapters[0] - 1) * evaluations[num_epochs] if last == num_epochs else 0
        evaluation.append(cuts + sum(each for epochs, each in evaluations.items() if epochs <= last))
    return fmean(training), fmean(evaluation)


def _earliest_stop(strategy: str, ladder: Ladder, num_epochs: int) -> int:
    """The epochs after which a strategy's trial may be stopped first; all where it may not."""
    return next((epochs for epochs in ladder.epochs if ladder.may_stop(strategy, epochs)), num_epochs)


def images_of(config: SweepConfig, num_train: int, batch_size: tuple[float, float]) -> tuple[float, float]:
    """Images that a complete trial sees in training, least and most; none where the clock decides.

    Args:
        config: of the sweep.
        num_train: films of the training split.
        batch_size: of the trial, least and most; where steps are counted, those of a short last batch of a pass are not.
    """
    budget = config.search.budget
    if budget.seconds is not None:
        return 0.0, 0.0
    if budget.steps is not None:
        fewest, most = (budget.steps * size for size in batch_size)
        return fewest, most
    images = float(budget.images or config.training.num_epochs * num_train)
    return images, images


def strategy_costs(config: SweepConfig, conditions: tuple[str, ...]) -> tuple[StrategyCosts, ...]:
    """What each strategy of a sweep costs, over the first and the last choice of everything.

    Args:
        config: of the sweep.
        conditions: of the data, for strategies that have tokens for them.

    Raises:
        ConfigError: no strategy can meet the limits.
    """
    limits = limits_of(config, conditions, _shapes_of(config.base))
    names, _ = check_limits(config, limits)
    space, fixed = SEARCH_SPACES[config.search.space], config.search.hyperparameters
    costs = []
    for name in names:
        choices = first_and_last(space, name, fixed)
        ends = [limits.costs.of(choice) for choice in choices]
        pairs = {key: _span([end[key] for end in ends]) for key in ("trainable_parameters", "adapter_mib", OPERATIONS)}
        pairs["batch_size"] = _span([float(choice["batch_size"]) for choice in choices])
        pairs["adapters"] = _span([count for choice in choices for count in _adapters(choice)])
        costs.append(StrategyCosts(strategy=name, **pairs))
    return tuple(costs)


def _adapters(choice: Choice) -> tuple[float, float]:
    """How many a training gives, least and most: its own and its cuts, of which the smallest is scored in any case."""
    fields = {name: value for name, value in choice["strategy"].items() if name != "name"}
    strategy = make_strategy(choice["strategy"]["name"], fields)
    most = len(strategy.cuts())
    return 1.0 + (most if strategy.names_its_cuts else min(1, most)), 1.0 + most


def _shapes_of(base: str) -> str:
    """Where a base's shapes are read: a folder's need no weights, those of Stable Diffusion 1.5 no download."""
    if base in ("sd15", HUB_IDS["sd15"]):
        return "sd15"
    return base if base == "mini" or Path(base).is_dir() else str(resolve_base(base))


def _span(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _sampling(config: SweepConfig, films: Workload) -> Callable[[int], float]:
    """Operations of the evaluation after so many epochs."""
    settings, base = config.evaluation, _shapes_of(config.base)
    each = _per_film(base, state_of_shapes(base), settings.guidance_scale, config.resolution_px)

    def spent(epochs: int) -> float:
        rung = at_rung(settings, epochs / config.training.num_epochs)
        num_films = sum(min(rung.images_per_condition, most) for most in films.num_held_out.values())
        return float(num_films * each.in_steps(rung.num_steps))

    return spent


@lru_cache(maxsize=8)
def _per_film(base: str, state: str, guidance_scale: float, resolution_px: int | None) -> FilmOperations:
    """Operations of a film, which this process counts once for each state of the base's files."""
    return operations_per_film(base_on_meta(base).for_films_of(resolution_px), guidance_scale=guidance_scale)
