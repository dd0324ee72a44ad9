"""The sweep's configuration: validated sections, each frozen, with unknown keys refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from analysis.checks import unknown_name
from analysis.features import EXTRACTORS
from analysis.front.objectives import objective_directions
from analysis.front.pareto import Objective
from analysis.metrics import METRICS
from search_spaces import SEARCH_SPACES, is_known_to, known_to, strategies_of
from sweep.notation import flat
from sweep.records.settings import TrackingConfig
from sweep.search.ladder import Ladder
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.settings import LimitsConfig, RungsConfig, StopConfig
from sweep.search.stopping_rules import NO_STOPS, TRIAL_SCHEDULERS
from sweep.trials.settings import CacheConfig
from trainables.budgets import NO_BUDGET, Budget
from trainables.settings import MAX_GUIDANCE, Count, NonNegative, Positive, Precision, Section, Share, TrainingConfig

ENCODER_FIELDS: Final = ("encoder", "text_encoder_swap.encoder")
"""Hyperparameters that name a text encoder, of `text_encoder_swap` and of combinations with it: hub ids, or folders."""


class ConfigError(ValueError):
    """The configuration breaks a rule; the message says which, what came, and what to do."""


def require_known(what: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse names of which one is not valid.

    Args:
        what: what the names name, such as a key of the configuration.
        names: those that came.
        valid: all that there are.

    Raises:
        ConfigError: One is unknown; the message gives the nearest and all valid names.
    """
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ConfigError(unknown_name(what, name, valid))


def _require_strategies(names: Sequence[str], space: str) -> None:
    for name in names:
        if not is_known_to(space, name):
            elsewhere = [other for other in SEARCH_SPACES if is_known_to(other, name)]
            hint = (
                f" It is in the space {' and '.join(elsewhere)}: set search.space={elsewhere[0]}." if elsewhere else ""
            )
            raise ConfigError(unknown_name("strategy", name, known_to(space)) + hint)


def _require_distinct(what: str, names: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"`{what}` must be distinct names, at least one, but got {list(names)}. Name each one once.")


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _by_strategy(value: object) -> object:
    """`{"lora+text_encoder": {"lora": {"rank": 4}}}` and `{...: {"lora.rank": 4}}` are the same."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: dict(flat(settings)) if isinstance(settings, Mapping) else settings for name, settings in value.items()
    }


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]


class DataConfig(Section):
    """Where images and prompts come from.

    Attributes:
        source: `phantom` draws films, so that a sweep runs without data; `prepared` reads what `sweep.prepare` wrote.
        conditions: the findings for which films are generated and scored; None, the default: all that at least two
            validation films show.
        path: the folder of the prepared data set; only beside `prepared`.
        num_patients: patients of the phantom. 600 have 1,160 films at seed 0, of which 163 are for validation: drawn in
            seconds, and enough to score each of the six conditions.
        resolution_px: side of the phantom's films, which must be that of the sweep; 64 is the mini base's. Prepared films
            have their own.
        seed: draws the phantom's patients. It is not the sweep's, so that sweeps of several seeds see the same films.
    """

    source: Literal["phantom", "prepared"] = "phantom"
    conditions: Names | None = None
    path: Path | None = None
    num_patients: Annotated[int, Field(ge=10)] = 600
    resolution_px: Annotated[int, Field(ge=64, multiple_of=8)] = 64
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _path_when_prepared(self) -> Self:
        if self.source != "prepared" and self.path is not None:
            raise ValueError(
                f"`data.path` must stand beside `data.source` 'prepared', as {self.source!r} reads no films, but got "
                f"{str(self.path)!r}. Add --set data.source=prepared, or leave it out by --set data.path=null."
            )
        if self.source == "prepared" and self.path is None:
            raise ValueError(
                "`data.path` must name a prepared data set when `data.source` is 'prepared', but got none. "
                "Prepare one with `python -m sweep.prepare` and give it with --set data.path=FOLDER."
            )
        return self


class EvaluationConfig(Section):
    """How a trained model is sampled and scored.

    Attributes:
        extractor: makes the features that metrics compare; their names carry its own. `mini` is bundled, and needs neither
            network nor GPU; it orders models at 64 px and is no substitute for `xrv`.
        extractor_weights: the extractor's weights where they are not at their usual place (None): a file, or a folder.
        images_per_condition: the most films that are generated for a condition at the end of a training; fewer where fewer
            validation films show it. 32 keep an evaluation short on a CPU: their distances order trials, and are too biased
            to be published.
        num_steps: steps of the solver; 20 are enough for DPM-Solver++ (Lu et al. 2022).
        early_images_share: an evaluation during training takes at least this share of the images; the share grows by
            doublings with the training that is done, and the last evaluation takes all. A quarter of the images in half of
            the steps costs an eighth of the last evaluation. 1: always all.
        early_steps_share: likewise of the steps. Both 1: evaluations during training are like the last.
        guidance_scale: weight of classifier-free guidance; 1 or less samples without it, in half the time. 3 is milder than
            the usual 7.5, as strong guidance buys fidelity with diversity, and both are objectives.
        batch_size: films that are sampled at a time, bounded by the device's memory alone; 64 suit films of 64 px, and the
            presets at 512 px take 8 or 16.
        precision: the numbers in which films are sampled; `auto` is bf16 on a GPU that has it, fp16 on one that has not,
            `fp32` on a CPU. Scores of films of another precision are others, if not by much.
        split: the films that generated ones are compared with. `validation` is the only choice: test patients are for
            `sweep.evaluate`, or the search would have seen them.
    """

    extractor: str = "mini"
    extractor_weights: Path | None = None
    images_per_condition: Annotated[int, Field(ge=2)] = 32
    num_steps: Count = 20
    early_images_share: Share = 0.25
    early_steps_share: Share = 0.5
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] = 3.0
    batch_size: Count = 64
    precision: Precision = "auto"
    split: Literal["validation"] = "validation"

    @field_validator("extractor")
    @classmethod
    def _known_extractor(cls, extractor: str) -> str:
        require_known("evaluation.extractor", [extractor], EXTRACTORS)
        return extractor


class ComputeConfig(Section):
    """What the sweep may use; by default as little as works: two processes of one CPU each, and no GPU.

    Attributes:
        workers_per_trial: processes that share a trial's training; of [fewest, most] as many as there is room for. One
            worker, the default, trains in a process that stays, without the seconds that starting a group takes.
        concurrent_trials: trials that run at once, if there is room for so many.
        cpus_per_worker: CPUs that Ray reserves for each worker, which are also the threads that it computes with.
        gpus_per_worker: GPUs of each worker; 0.5: two share one. 0, the default: it computes on CPUs.
        evaluation_actors: processes that generate and score films, for all trials together. Where several have nothing to do,
            they share out an evaluation's films, by whole batches of evaluation.batch_size.
        evaluation_cpus: CPUs of each of them, likewise its threads.
        evaluation_gpus: GPUs of each of them, likewise.
        max_retries: how often a trial is tried again that lost its process or its machine. 3 outlast a machine that comes
            and goes; a configuration that kills its process each time ends after four attempts.
        address: of a Ray cluster: HOST:PORT, `auto` or `local`. None, the default: what RAY_ADDRESS says, or else a Ray of
            the sweep's own.
        may_grow: the cluster adds nodes when they are asked for; what finds no room is waited for and not refused. By default
            it does not, and what can never run is refused at once.
        compile: have the U-Net's blocks compiled for training, by torch's own compiler: losses are the same but for rounding,
            and the first step of each strategy, shape and rank takes longer. Needs a C++ compiler where trials run. Off by
            default, as nobody has seen yet what it gains on a GPU. Films are sampled without it.
    """

    workers_per_trial: Count | tuple[Count, Count] = 1
    concurrent_trials: Count = 1
    cpus_per_worker: Positive = 1.0
    gpus_per_worker: NonNegative = 0.0
    evaluation_actors: Count = 1
    evaluation_cpus: Positive = 1.0
    evaluation_gpus: NonNegative = 0.0
    max_retries: Annotated[int, Field(ge=0)] = 3
    address: str | None = None
    may_grow: bool = False
    compile: bool = False

    @property
    def compiler(self) -> str | None:
        """Torch's backend that compiles, if one is asked for."""
        return "inductor" if self.compile else None


class SearchConfig(Section):
    """Which configurations are tried, and how many.

    Attributes:
        space: name of the search space: `mini` has ranges for the mini base, `core` for Stable Diffusion 1.5.
        strategies: those to choose from; None, the default: all that the space has.
        hyperparameters: by strategy, values that it has in every trial in place of the space's suggestion or its default.
        sampler: name of the search sampler. The default takes the fewest GPU-hours to a front in `benchmarks/RESULTS.md`.
        scheduler: name of the trial scheduler, which stops trials at rungs; `none`: all are trained to their end. The default
            stops trials whose rest is expected to add less than a tenth as much to the front, for its cost, as another training.
        rungs: where it compares trials.
        limits: the most that a configuration may cost.
        budget: how far each trial is trained.
        stop: when the sweep ends before all of its trials.
        num_trials: configurations that are tried, at most; 12 give four strategies three trials each.
        prior: run directories of earlier sweeps, from which the search learns.
    """

    space: str = "mini"
    strategies: Names | None = None
    hyperparameters: Annotated[dict[str, dict[str, Any]], BeforeValidator(_by_strategy)] = Field(default_factory=dict)
    sampler: str = "front"
    scheduler: str = "gain"
    rungs: RungsConfig = RungsConfig()
    limits: LimitsConfig = LimitsConfig()
    budget: Budget = NO_BUDGET
    stop: StopConfig = StopConfig()
    num_trials: Count = 12
    prior: tuple[Path, ...] = ()

    def candidates(self) -> tuple[str, ...]:
        """The strategies to choose from by name, the space's own where none are given."""
        return self.strategies or strategies_of(SEARCH_SPACES[self.space])

    def ladder(self, num_epochs: int) -> Ladder:
        """The rungs of trainings of that many epochs; none where no trial is stopped."""
        if self.scheduler == NO_STOPS:
            return Ladder()
        rungs = self.rungs
        return Ladder.of(first=rungs.first, eta=rungs.eta, num_epochs=num_epochs, floors=rungs.floors)

    def located(self) -> Self:
        """The same with absolute folders of text encoders and earlier sweeps."""
        hyperparameters = {
            name: {key: _located(value) if key in ENCODER_FIELDS else value for key, value in settings.items()}
            for name, settings in self.hyperparameters.items()
        }
        prior = tuple(path.expanduser().absolute() for path in self.prior)
        return self.model_copy(update={"hyperparameters": hyperparameters, "prior": prior})

    @field_validator("space")
    @classmethod
    def _known_space(cls, space: str) -> str:
        require_known("search.space", [space], SEARCH_SPACES)
        return space

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, sampler: str) -> str:
        require_known("search.sampler", [sampler], SEARCH_SAMPLERS)
        return sampler

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, scheduler: str) -> str:
        require_known("search.scheduler", [scheduler], TRIAL_SCHEDULERS)
        return scheduler

    @model_validator(mode="after")
    def _known_strategies(self) -> Self:
        if self.strategies is not None:
            _require_distinct("search.strategies", self.strategies)
            _require_strategies(self.strategies, self.space)
        require_known("search.hyperparameters", self.hyperparameters, self.candidates())
        require_known("search.rungs.floors", self.rungs.floors, self.candidates())
        return self


class SweepConfig(Section):
    """Everything that defines a sweep.

    Attributes:
        preset: name of the preset that the other values come from, which names the experiment in MLflow too.
        base: `mini`, `sd15`, a hub id, or a folder of that layout; the bundled one is the default, as it is always there.
        resolution_px: side of the films that are trained on, generated and scored. None, the default: that which the base
            was trained at, where it is best. The data must have it.
        objectives: metrics by their plain names, and costs; each is better in its own direction. By default fidelity and
            diversity against what is trained and how long an epoch takes.
        seed: of the search, the training and the evaluation.
        search: which configurations are tried, and how many.
        data: where images and prompts come from.
        training: what all trials share.
        evaluation: how a trained model is sampled and scored.
        compute: what the sweep may use.
        cache: where latents are kept.
        tracking: where MLflow's runs are kept.
    """

    preset: str = "demo"
    base: Annotated[str, Field(min_length=1)] = "mini"
    resolution_px: Annotated[int, Field(ge=64, le=1024, multiple_of=8)] | None = None
    objectives: Names = ("fid", "vendi", "trainable_parameters", "epoch_s")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    search: SearchConfig = SearchConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    compute: ComputeConfig = ComputeConfig()
    cache: CacheConfig = CacheConfig()
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    def located(self) -> Self:
        """The same with absolute folders: trials run in other processes, with working directories of their own."""
        data = self.data.model_copy(update={"path": _absolute(self.data.path)})
        evaluation = self.evaluation.model_copy(
            update={"extractor_weights": _absolute(self.evaluation.extractor_weights)}
        )
        return self.model_copy(
            update={
                "data": data,
                "evaluation": evaluation,
                "cache": CacheConfig(path=_absolute(self.cache.path)),
                "base": _located(self.base),
                "search": self.search.located(),
            }
        )

    def with_prior(self, folders: Sequence[Path]) -> Self:
        """The same whose search learns from further earlier sweeps."""
        search = self.search.model_copy(update={"prior": (*self.search.prior, *folders)})
        return self.model_copy(update={"search": search})

    def reported_objectives(self) -> tuple[Objective, ...]:
        """The objectives as results name them: a metric's name carries its extractor, as in `fid_mini`."""
        extractor, directions = self.evaluation.extractor, objective_directions()
        return tuple(
            Objective(METRICS[name].reported_name(extractor) if name in METRICS else name, directions[name])
            for name in self.objectives
        )

    @model_validator(mode="after")
    def _rungs_within_the_budget(self) -> Self:
        rungs, num_epochs = self.search.rungs, self.training.num_epochs
        if rungs.first is not None and rungs.first >= num_epochs:
            raise ValueError(
                f"`search.rungs.first` must be below the {num_epochs} epochs of training.num_epochs, but got {rungs.first}: "
                f"the rungs {rungs.first}, {rungs.first * rungs.eta}, ... would stop nothing. Lower it to at most "
                f"{num_epochs - 1}, train for more epochs, or set search.scheduler=none."
            )
        for name, floor in rungs.floors.items():
            if floor > num_epochs:
                raise ValueError(
                    f"`search.rungs.floors` must be at most the {num_epochs} epochs of training.num_epochs, but got {floor} "
                    f"for {name}. {num_epochs} lets each of its trials come to its end."
                )
        return self

    @model_validator(mode="after")
    def _epochs_within_the_budget(self) -> Self:
        self.search.budget.expect_parts(self.training.num_epochs)
        seconds = self.search.budget.seconds
        if seconds is not None and "epoch_s" in self.objectives:
            raise ValueError(
                f"`objectives` must be what trials can differ in, but got epoch_s with search.budget.seconds={seconds:g}, of "
                f"which each epoch takes {seconds / self.training.num_epochs:.3g}. Take images_per_s or "
                "operations_per_image in its place."
            )
        return self

    @model_validator(mode="after")
    def _gpu_hours_of_gpus(self) -> Self:
        if self.search.stop.gpu_hours is not None and not self.compute.gpus_per_worker:
            raise ValueError(
                "`search.stop.gpu_hours` must be of trials that have GPUs, but got compute.gpus_per_worker=0. Set "
                "search.stop.hours, or give trials GPUs."
            )
        return self

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        _require_distinct("objectives", objectives)
        require_known("objective", objectives, objective_directions())
        return objectives


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


def _located(named: Any) -> Any:
    """The absolute path of a folder or file; what names none, as a hub id, is left as it is."""
    if not isinstance(named, str):
        return named
    path = Path(named).expanduser()
    return str(path.absolute()) if path.exists() else named
