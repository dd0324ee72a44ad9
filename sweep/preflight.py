"""What a sweep needs before it starts, checked and put together in one place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from analysis.features import load_extractor
from analysis.metrics import METRICS, Metric
from analysis.run_folder import CACHE
from search_spaces import ENCODERS, SEARCH_SPACES, fields_in, shared_of
from sweep.config import ENCODER_FIELDS, ConfigError, DataConfig, SweepConfig, require_known
from sweep.records.earlier import Identity, read_all
from sweep.records.journal import holds_run, past_of
from sweep.scoring.plans import conditions_to_score, require_known_conditions
from sweep.scoring.rungs import require_measured_at_rungs
from sweep.search.checkpoint_room import require_room
from sweep.search.costs import KnownCosts, Limits, first_and_last, strategies_within
from sweep.search.plan import SearchPlan
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.trials.earlier import EarlierSweep
from trainables.base_models.models import (
    DiffusionModels,
    base_num_timesteps,
    base_resolution_px,
    resolve_base,
    weights_hash,
)
from trainables.base_models.shapes import base_on_meta, state_of_shapes
from trainables.base_models.text_encoders import load_bert
from trainables.caption_lengths import caption_note
from trainables.datasets.base import SPLITS
from trainables.datasets.checksums import set_aside
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import CARD, PreparedDataset
from trainables.datasets.writing import write_dataset
from trainables.strategies import hyperparameters_of, make_strategy
from trainables.strategies.low_rank import expect_positive, expect_rank


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A sweep that can start.

    Attributes:
        config: what is to be done, with absolute folders.
        out: the run directory, owned by this process.
        weights_hash: hash of the base model's weights.
        dataset: what trials train on and are compared with.
        conditions: the findings that are scored.
        strategies: the strategies to choose from that can meet the limits.
        limits: what a configuration may cost.
        notes: strategies that cannot meet the limits, objectives that will be missing for some of the conditions, captions
            that are too long, and films that are mirrored.
        earlier: what earlier sweeps know that the run directory does not hold yet.
    """

    config: SweepConfig
    out: Path
    weights_hash: str
    dataset: PreparedDataset
    conditions: tuple[str, ...]
    strategies: tuple[str, ...]
    limits: Limits
    notes: tuple[str, ...]
    earlier: tuple[EarlierSweep, ...] = ()


def preflight(config: SweepConfig, out: Path, console: Console) -> Prepared:
    """Check a configuration as far as one can without Ray, the cheapest checks first, and draw the phantom's films.

    Args:
        config: what to do.
        out: the run directory, which the caller owns.
        console: where the drawing shows its progress.

    Raises:
        ConfigError: data and base model do not fit, a strategy or hyperparameter does not work, an objective needs
            more images, or the disk has no room for checkpoints.
        FileNotFoundError: the data or the extractor's weights are not there.
        ValueError: the data do not show a condition that is to be scored.
    """
    config = config.located()
    weights = check_base(config)
    unread = _unread(config, out)
    read_all(unread, config, Identity(weights=weights))  # before films are drawn
    check_steps(config)
    check_strategies(config)
    check_sampler(config, config.search.candidates())
    load_extractor(config.evaluation.extractor, weights=config.evaluation.extractor_weights)
    dataset = _checked_data(config, out, console)
    conditions = conditions_to_score(dataset, config.evaluation.split, config.data.conditions)
    num_images = images_of_conditions(dataset, conditions, config)
    notes = check_objectives(config, num_images)
    require_measured_at_rungs(config, num_images)
    if cut := caption_note(config.base, dataset.split("train").prompts):
        notes.append(f"Of the training films {cut}")
    if config.training.augmentation.flip:
        notes.append(mirrored_note(dataset))
    limits = limits_of(config, dataset.conditions, str(resolve_base(config.base)))
    strategies, refused = check_limits(config, limits)
    check_sampler(config, strategies)
    check_budget(config, strategies)
    require_room(config, out, strategies, limits)
    notes += [f"{name} is left out by search.limits: it has at least {why}" for name, why in refused.items()]
    return Prepared(
        config=config,
        out=out,
        weights_hash=weights,
        dataset=dataset,
        conditions=conditions,
        strategies=strategies,
        limits=limits,
        notes=tuple(notes),
        earlier=read_all(unread, config, Identity(data=dataset.fingerprint, weights=weights)),
    )


def mirrored_note(dataset: PreparedDataset) -> str:
    """What films whose left and right are exchanged do to those who learn from them."""
    sides = "" if dataset.prompts.template else ", and of films' own texts those that name a side are wrong"
    return f"training.augmentation.flip mirrors half of the variants of training films: there, hearts lie right{sides}"


def _unread(config: SweepConfig, out: Path) -> tuple[Path, ...]:
    """The earlier sweeps that the run directory's log does not hold yet; they are read before its first trial."""
    prior = config.search.prior
    return prior[past_of(out, config.reported_objectives()).num_earlier :] if prior else ()


def limits_of(config: SweepConfig, conditions: tuple[str, ...], base: str) -> Limits:
    """What a configuration may cost, and how its costs are counted: on the base model's shapes.

    Args:
        config: names the limits.
        conditions: of the data set.
        base: the base model, as `base_on_meta` takes it.
    """
    costs = _known_costs(
        base,
        state_of_shapes(base),
        conditions,
        cached=config.training.cache_latents,
        resolution_px=config.resolution_px,
    )
    return Limits(bounds=config.search.limits.bounds(), costs=costs)


@lru_cache(maxsize=8)
def _known_costs(
    base: str, state: str, conditions: tuple[str, ...], *, cached: bool, resolution_px: int | None
) -> KnownCosts:
    """Costs on a base's shapes, which this process counts once for each state of the base's files."""
    return KnownCosts(
        fresh=lambda: base_on_meta(base).for_films_of(resolution_px), conditions=conditions, cached=cached
    )


def check_limits(config: SweepConfig, limits: Limits) -> tuple[tuple[str, ...], dict[str, str]]:
    """The strategies that can meet the limits, and of each other one why it cannot.

    Raises:
        ConfigError: none can.
    """
    search = config.search
    try:
        return strategies_within(limits, SEARCH_SPACES[search.space], search.candidates(), search.hyperparameters)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _checked_data(config: SweepConfig, out: Path, console: Console) -> PreparedDataset:
    if config.data.source == "phantom":
        check_resolution(config.data.resolution_px, config)  # before it is drawn
    drawn = out / CACHE / "dataset"
    going_on = holds_run(out) and (drawn / CARD).is_file() and _is_sound(drawn)
    dataset = PreparedDataset.open(drawn) if going_on else open_data(config.data, drawn, console)
    check_resolution(dataset.resolution_px, config)
    return dataset


def _is_sound(drawn: Path) -> bool:
    """Whether the films that a sweep goes on with are as they were drawn; damaged ones are set aside."""
    try:
        PreparedDataset.open(drawn).require_sound()
    except (OSError, ValueError):
        set_aside(drawn)
        return False
    return True


def open_data(config: DataConfig, folder: Path, console: Console) -> PreparedDataset:
    """The prepared data set that is named, or a phantom drawn into `folder`.

    Args:
        config: the configuration's section `data`.
        folder: where a phantom is drawn; one that is there is drawn anew.
        console: shows the progress of drawing.
    """
    if config.source == "prepared" and config.path is not None:
        return PreparedDataset.open(config.path)
    if (folder / CARD).is_file():
        shutil.rmtree(folder)  # drawn for a run that was refused before it began
    source = PhantomSource(num_patients=config.num_patients, resolution_px=config.resolution_px, seed=config.seed)
    require_known_conditions(config.conditions or (), source.conditions)
    total = sum(source.num_samples(split) for split in SPLITS)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("drawing phantom films", total=total)
        return write_dataset(source, folder, on_progress=lambda count: progress.update(bar, completed=count))


def check_base(config: SweepConfig) -> str:
    """The hash of the base model's weights.

    Raises:
        ConfigError: the base model cannot be had, or cannot work.
    """
    try:
        return weights_hash(resolve_base(config.base))
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error


def check_steps(config: SweepConfig) -> None:
    """Films must be generated in no more steps than the base's noise schedule has.

    Raises:
        ConfigError: they are not.
    """
    most, came = base_num_timesteps(config.base), config.evaluation.num_steps
    if came > most:
        raise ConfigError(
            f"`evaluation.num_steps` must be at most the {most} steps of the base's noise schedule, but got {came}. "
            f"Set evaluation.num_steps={min(20, most)}."
        )


def check_strategies(config: SweepConfig) -> None:
    """Strategies must fit the base model, and the values given to them must be theirs; seen on shapes, without weights.

    Text encoders that trials can draw are loaded as a trial does, one after the other.

    Raises:
        ConfigError: a strategy finds nothing to train, has no such hyperparameter, a value breaks its rule, or a text
            encoder cannot be had or loaded.
    """
    folder = str(resolve_base(config.base))
    for name in config.search.candidates():
        fixed = config.search.hyperparameters.get(name, {})
        drawn: list[str] = []
        try:
            _expect_fixed(name, fixed)
            drawn = [key for key in ENCODER_FIELDS if key in hyperparameters_of(name) and key not in fixed]
            for hyperparameters in [{**fixed, key: encoder} for key in drawn for encoder in ENCODERS] or [fixed]:
                models, by_clock = base_on_meta(folder), config.search.budget.seconds is not None
                _check_strategy(name, hyperparameters, models, by_clock=by_clock)
        except (ValueError, FileNotFoundError) as error:
            remedies = [
                f" The space draws the encoder; fix one that works with --set search.hyperparameters.{name}.{key}=ENCODER."
                for key in drawn
            ]
            raise ConfigError(f"`search.strategies` has {name}: {error}{''.join(remedies)}") from error


def check_sampler(config: SweepConfig, strategies: Sequence[str]) -> None:
    """The search sampler must be able to suggest as many trials of these strategies as are asked for.

    Raises:
        ConfigError: it cannot.
    """
    search = config.search
    plan = SearchPlan.of(
        SEARCH_SPACES[search.space],
        strategies,
        search.hyperparameters,
        num_trials=search.num_trials,
        seed=config.seed,
    )
    try:
        SEARCH_SAMPLERS[search.sampler](plan.at(search.num_trials - 1))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_budget(config: SweepConfig, strategies: Sequence[str]) -> None:
    """Each epoch must have room for a batch of every size that trials can have.

    Raises:
        ConfigError: a budget of images has none.
    """
    search, num_epochs = config.search, config.training.num_epochs
    if search.budget.images is None:
        return
    space, fixed = SEARCH_SPACES[search.space], search.hyperparameters
    largest = max(choice["batch_size"] for name in strategies for choice in first_and_last(space, name, fixed))
    if search.budget.images < num_epochs * largest:
        raise ConfigError(
            f"`search.budget.images` must be at least training.num_epochs={num_epochs} times the largest batch of {largest}, "
            f"{num_epochs * largest} images, but got {search.budget.images}. Raise it, or lower training.num_epochs."
        )


def _expect_fixed(name: str, fixed: Mapping[str, Any]) -> None:
    """What is fixed for a strategy must be known of it, with learning rates and a batch size that can be."""
    require_known(f"hyperparameter of {name}", fixed, [*hyperparameters_of(name), *shared_of(name)])
    for key in fixed.keys() & set(shared_of(name)):
        if key == "batch_size":
            expect_rank(fixed[key], key)
        else:
            expect_positive(fixed[key], key, "Try 1e-4.")
        if f"{key}_ratio" in fixed:
            raise ConfigError(f"`{key}` must stand without `{key}_ratio`, but got both. Leave one of them out.")


def _check_strategy(name: str, hyperparameters: Mapping[str, Any], models: DiffusionModels, *, by_clock: bool) -> None:
    strategy = make_strategy(name, fields_in(name, hyperparameters))
    if by_clock and strategy.counts_on_steps:
        raise ValueError(
            "`search.budget.seconds` must be of strategies that do without the number of steps, but it plans by them. Give "
            "search.budget.steps or .images, or leave it out of search.strategies."
        )
    for key, encoder in strategy.hyperparameters().items():
        if key in ENCODER_FIELDS:
            load_bert(encoder, num_tokens=models.tokenizer.model_max_length, device=torch.device("cpu"))
    strategy.attach(models)


def check_resolution(resolution_px: int, config: SweepConfig) -> None:
    """The films must have the resolution that is trained and generated at: the sweep's, or else the base model's own.

    Raises:
        ConfigError: they have another.
    """
    wanted = config.resolution_px or base_resolution_px(config.base)
    if resolution_px != wanted:
        why = "as `resolution_px` says" if config.resolution_px else f"for base {config.base!r}"
        raise ConfigError(
            f"`data` must have films of {wanted} px {why}, but got {resolution_px} px. Prepare them with "
            f"`python -m sweep.prepare ... --resolution {wanted}`, or set data.resolution_px={wanted}; to train at another "
            f"side than the base was, set resolution_px={resolution_px}."
        )


def images_of_conditions(dataset: PreparedDataset, conditions: tuple[str, ...], config: SweepConfig) -> dict[str, int]:
    """How many images the last evaluation generates for each condition: no more than held-out films show it.

    Args:
        dataset: the prepared films.
        conditions: those that are scored.
        config: says which split is held out, and how many films are asked for.
    """
    held_out = dataset.split(config.evaluation.split)
    most = config.evaluation.images_per_condition
    return {condition: min(most, len(held_out.indices_with(condition))) for condition in conditions}


def check_objectives(config: SweepConfig, num_images: Mapping[str, int]) -> list[str]:
    """Refuse objectives that every trial would lack at its end.

    Args:
        config: names the objectives.
        num_images: generated for each condition.

    Returns:
        A note for each objective that will be missing for some of the conditions only.

    Raises:
        ConfigError: an objective needs more images than there are of all conditions together.
    """
    total, metrics = sum(num_images.values()), [METRICS[name] for name in config.objectives if name in METRICS]
    for metric in metrics:
        if not metric.fits(total, total):
            raise ConfigError(
                f"`objectives` must be measurable, but got {metric.name!r}, which needs {metric.min_images} images, "
                f"with {total} of all conditions together ({dict(num_images)}). Raise evaluation.images_per_condition, "
                "prepare more held-out films, or choose other objectives."
            )
    return [note for metric in metrics if (note := _missing(metric, num_images))]


def _missing(metric: Metric, num_images: Mapping[str, int]) -> str:
    few = [f"{condition} ({count})" for condition, count in num_images.items() if not metric.fits(count, count)]
    return f"{metric.name} needs {metric.min_images} images and will be missing for {', '.join(few)}" if few else ""
