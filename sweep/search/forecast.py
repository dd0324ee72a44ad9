"""What a sweep will cost, as far as shapes and counts tell before it starts: the plan that `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from analysis.front.objectives import OPERATIONS
from search_spaces import SEARCH_SPACES
from sweep.config import SweepConfig
from sweep.preflight import check_limits, images_of_conditions, limits_of
from sweep.scoring.plans import conditions_to_score
from sweep.scoring.rungs import at_rung
from sweep.search.costs import first_and_last
from trainables.base_models.models import resolve_base
from trainables.base_models.shapes import base_on_meta
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.strategies.operations import operations_per_film
from trainables.trial import evaluates_after

TERA: Final = 1e12
SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, kw_only=True)
class StrategyCosts:
    """What one strategy costs, from the least to the most of its choices.

    Attributes:
        strategy: its name.
        trainable_parameters: least and most, when training begins.
        adapter_mib: least and most, of the adapter's file.
        operations_per_image: least and most, floating-point operations of a training image.
    """

    strategy: str
    trainable_parameters: tuple[float, float]
    adapter_mib: tuple[float, float]
    operations_per_image: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How many films a trial sees and makes.

    Attributes:
        num_train: films of the training split.
        num_held_out: by scored condition, the most films that one evaluation generates for it.
    """

    num_train: int
    num_held_out: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Costs of a sweep.

    Attributes:
        strategies: those that can meet the limits.
        training: operations of a complete trial's training, the mean over strategies of their least and of their most.
        adapter_mib: of a complete trial, likewise the mean of the most.
        evaluation: operations of a complete trial's evaluations.
        stopped: the share of a trial's training after which the trial scheduler may stop it first; 1: never.
        stopped_evaluation: operations of the evaluations up to there.
        num_trials: of the sweep.
        num_whole: how many trials are trained to the end at least: one of each strategy.
    """

    strategies: tuple[StrategyCosts, ...]
    training: tuple[float, float]
    adapter_mib: float
    evaluation: float
    stopped: float
    stopped_evaluation: float
    num_trials: int
    num_whole: int

    def operations(self) -> tuple[float, float]:
        """Of all trials, spread evenly over the strategies.

        Returns:
            What they take where all that may be are stopped at the first rung and cost least, and where none is stopped
            and all cost most.
        """
        cheapest, dearest = self.training
        num_stopped = self.num_trials - self.num_whole
        least = self.num_whole * (cheapest + self.evaluation)
        least += num_stopped * (self.stopped * cheapest + self.stopped_evaluation)
        return least, self.num_trials * (dearest + self.evaluation)

    def hours(self, tflops: float) -> tuple[float, float]:
        """Hours of one worker that sustains so many TFLOP/s, for all trials one after the other; least and most."""
        least, most = self.operations()
        return least / (tflops * TERA * SECONDS_PER_HOUR), most / (tflops * TERA * SECONDS_PER_HOUR)


def workload(config: SweepConfig) -> Workload | None:
    """The films of a sweep; none where they are not prepared yet.

    Raises:
        ValueError: the data do not show a condition that is to be scored.
    """
    data = config.data
    if data.source == "phantom":
        source = PhantomSource(num_patients=data.num_patients, resolution_px=data.resolution_px, seed=data.seed)
        most = config.evaluation.images_per_condition
        return Workload(
            num_train=source.num_samples("train"),
            num_held_out=dict.fromkeys(data.conditions or source.conditions, most),
        )
    try:
        dataset = PreparedDataset.open(data.path) if data.path is not None else None
    except FileNotFoundError:
        return None
    if dataset is None:
        return None
    conditions = conditions_to_score(dataset, config.evaluation.split, data.conditions)
    return Workload(
        num_train=len(dataset.split("train")), num_held_out=images_of_conditions(dataset, conditions, config)
    )


def forecast(config: SweepConfig, films: Workload) -> Forecast:
    """Count what a sweep costs on its base's shapes, which needs no weights.

    Args:
        config: of the sweep, with absolute folders.
        films: that its trials see and make.

    Raises:
        ConfigError: no strategy can meet the limits.
        FileNotFoundError: the base is not there.
    """
    costs = strategy_costs(config, tuple(films.num_held_out))
    num_epochs = config.training.num_epochs
    low, high = (fmean(one.operations_per_image[end] for one in costs) for end in (0, 1))
    images = num_epochs * films.num_train
    rungs = config.search.ladder(num_epochs).epochs
    evaluated = [epoch + 1 for epoch in range(num_epochs) if evaluates_after(epoch, config.training, rungs)]
    spent = _sampling(config, films)
    first = min(rungs, default=num_epochs)
    return Forecast(
        strategies=costs,
        training=(low * images, high * images),
        adapter_mib=fmean(one.adapter_mib[1] for one in costs),
        evaluation=sum(map(spent, evaluated)),
        stopped=first / num_epochs,
        stopped_evaluation=sum(spent(epochs) for epochs in evaluated if epochs <= first),
        num_trials=config.search.num_trials,
        num_whole=min(len(costs), config.search.num_trials) if rungs else config.search.num_trials,
    )


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
    found = []
    for name in names:
        ends = [limits.costs.of(choice) for choice in first_and_last(space, name, fixed)]
        pairs = {key: _span([end[key] for end in ends]) for key in ("trainable_parameters", "adapter_mib", OPERATIONS)}
        found.append(StrategyCosts(strategy=name, **pairs))
    return tuple(found)


def _shapes_of(base: str) -> str:
    """Where a base's shapes are read; those of `sd15` need no download."""
    return base if base == "sd15" else str(resolve_base(base))


def _span(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _sampling(config: SweepConfig, films: Workload) -> Callable[[int], float]:
    """Operations of the evaluation after so many epochs."""
    models, settings = base_on_meta(_shapes_of(config.base)), config.evaluation
    kept: dict[int, int] = {}

    def spent(epochs: int) -> float:
        rung = at_rung(settings, epochs / config.training.num_epochs)
        num_films = sum(min(rung.images_per_condition, most) for most in films.num_held_out.values())
        if rung.num_steps not in kept:
            kept[rung.num_steps] = operations_per_film(
                models, num_steps=rung.num_steps, guidance_scale=settings.guidance_scale
            )
        return float(num_films * kept[rung.num_steps])

    return spent
