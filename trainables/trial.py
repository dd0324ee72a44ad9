"""The train function of a trial, the same for one worker in local mode and for a group of Ray Train workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict

from trainables.accelerators import new_accelerator
from trainables.base_models.models import COMPONENTS, DiffusionModels, load_base, resolve_base
from trainables.base_models.shapes import base_on_meta
from trainables.batches import BatchPlan
from trainables.budgets import NO_BUDGET, Budget
from trainables.cuts import CUTS, CutChoice, Score, export_and_score, one_by_one, score_cuts
from trainables.datasets.store import PreparedDataset
from trainables.epochs import EpochReport
from trainables.feeding import BatchFeeder
from trainables.keeping import UNTOLD, Keeper, checkpoint_of
from trainables.layer_ranks import RANKS, rank_metrics, write_ranks
from trainables.memory import forget_earlier_trials, room_bytes
from trainables.resuming import restore_weights
from trainables.settings import TrainingConfig, evaluates_after
from trainables.strategies import make_strategy
from trainables.strategies.base import Strategy
from trainables.strategies.operations import operations_per_image
from trainables.suspending import Suspendable, SuspendedError, beside_first, never, suspendable, unless_asked
from trainables.training import FineTuning

EVALUATION_ERROR = "evaluation_error"
"""Key of a report that says why there are no metrics in it."""
Report = Callable[[dict[str, Any]], None]


class EvaluationError(RuntimeError):
    """An adapter could not be scored, after a second attempt too."""


class Evaluator(Protocol):
    """Scores an exported adapter; given to the trial by whoever starts it."""

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        """Metrics by name, such as `fid_mini`; also leaves `samples.png` beside the adapter folder.

        Args:
            adapter: the exported folder.
            share_done: share of the training that is behind it, 1.0 at the end; before, fewer images may do.

        Raises:
            EvaluationError: it could not be scored.
        """


@dataclass(frozen=True)
class Forgiving:
    """An evaluator during training, where a failure is no more than a report without metrics.

    Attributes:
        evaluator: the one that is asked.
    """

    evaluator: Evaluator

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, Any]:
        """Metrics by name, or why there are none."""
        try:
            return self.evaluator.evaluate(adapter, share_done)
        except EvaluationError as error:
            return {EVALUATION_ERROR: str(error)}


class TrialSpec(BaseModel):
    """Everything that one trial needs to run, in any process that sees the same folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    """A hub id, a folder, or `mini`."""
    resolution_px: int | None = None
    """Side of the films; None: the base's own."""
    dataset: Path
    """Folder of the prepared data set."""
    fingerprint: str | None = None
    """What the data set must be, as its card says it; None: whatever it is."""
    folder: Path
    """The trial's own: adapter, samples, checkpoint."""
    cache_folder: Path
    """Where latents and prompt states are kept, for all sweeps of these films."""
    strategy: dict[str, Any]
    """`name`, and the hyperparameters of that strategy."""
    lr: float
    """Learning rate of AdamW."""
    batch_size: int
    """Images of one optimiser step, over all workers."""
    seed: int
    """It draws the order of images, their noise, and what the strategy draws."""
    training: TrainingConfig
    """Settings that all trials of a sweep share."""
    rungs: tuple[int, ...] = ()
    """Epochs after which the adapter is evaluated too, so that the sweep can compare trials."""
    counts_operations: bool = False
    """Whether it reports `operations_per_image`, which takes seconds to count."""
    budget: Budget = NO_BUDGET
    """How far it is trained; without one `training.num_epochs` passes over the images."""
    compiler: str | None = None
    """Torch's backend that compiles the U-Net's blocks for training, such as `inductor`; None: nothing is compiled."""


_warm: dict[tuple[str, str], DiffusionModels] = {}
"""Parts of base models that are loaded in this process, by base and part. They stay after a trial, so that the next
one, which mostly computes with the same parts, need not load them again."""


def warm_base(base: str, components: Collection[str]) -> DiffusionModels:
    """A base model of which `components` have their weights; the other parts have shapes alone.

    The parts are taken from the last trial of this process, or else loaded, and stay loaded for the next one. Parts that
    this trial does not compute with are let go first, so that memory holds no more than one trial's.
    """
    for key in _warm.keys() - {(base, name) for name in components}:
        del _warm[key]
    for name in components:
        if (base, name) not in _warm:
            _warm[base, name] = load_base(base, (name,))
    first, *others = components
    parts: dict[str, Any] = {name: _warm[base, name].component(name) for name in others}
    return replace(_warm[base, first], **parts)


def strategy_of(spec: TrialSpec) -> Strategy:
    """The strategy that the search sampler chose."""
    hyperparameters = {name: value for name, value in spec.strategy.items() if name != "name"}
    return make_strategy(spec.strategy["name"], hyperparameters)


def attached(spec: TrialSpec, strategy: Strategy, models: DiffusionModels) -> DiffusionModels:
    """A fresh base model with the trial's strategy attached, in place.

    What the strategy initialises at random depends on the trial's seed alone.

    Args:
        spec: of the trial.
        strategy: of the trial.
        models: without a strategy; changed in place.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        strategy.attach(models)
    return models


def components_in_training(spec: TrialSpec, strategy: Strategy) -> tuple[str, ...]:
    """The parts that training computes with: a frozen encoder whose outputs are cached is not even loaded."""
    if not spec.training.cache_latents:
        return COMPONENTS
    return tuple(name for name in COMPONENTS if name == "unet" or name in strategy.trains)


def fine_tune(spec: TrialSpec, evaluator: Evaluator, report: Report, choose: CutChoice = one_by_one) -> None:
    """Train, evaluate and report one trial; called once in every worker.

    A trial that was begun in the same folder goes on from its checkpoint, and reports what comes after it. The checkpoint
    stays, whatever ends the training, until whoever hears of the end removes it (`remove_checkpoints`, or
    `kept_until_it_ends`): an end that nobody heard of costs only the epochs after it.

    Args:
        spec: what to train.
        evaluator: scores the adapter, called by the first worker only.
        report: takes the metrics of each epoch, called by every worker; the last has `final: True`, and under `cuts`
            the smaller strategies that the training yields too, where there are any.
        choose: says which of those are worth scoring; without it all are.

    Raises:
        DivergedError: the loss became NaN or infinite.
        ValueError: the captions have not what the strategy trains by.
        EvaluationError: the last evaluation failed; an earlier one costs its report the metrics only.
        NotEnoughMemoryError: a step does not fit into memory.
        CompilationError: blocks are to be compiled, and cannot be.
        DataChangedError: the data set is another one than it should be, or gone.
        SuspendedError: it was asked to end (`suspend`), and keeps a checkpoint of where it is, be that within an epoch.
    """
    forget_earlier_trials()
    accelerator = new_accelerator(spec.training.mixed_precision)
    dataset = PreparedDataset.expected(spec.dataset, spec.fingerprint)
    strategy = strategy_of(spec).for_conditions(dataset.conditions)
    warm = warm_base(spec.base, components_in_training(spec, strategy))
    shared = warm.sharing().for_films_of(spec.resolution_px)
    models = attached(spec, strategy, shared).own_trained().to(accelerator.device)
    feeder = _feeder(spec, strategy, models, dataset, precision=accelerator.mixed_precision)
    feeder.keep_on(accelerator.device, room_bytes(accelerator.device))
    strategy.expect_captions(models, feeder.token_ids, dataset.conditions)
    plan = _plan(spec, dataset.num_samples["train"], accelerator.num_processes)
    checkpoint = checkpoint_of(spec)
    if checkpoint is not None:
        restore_weights(models, strategy, checkpoint)
    tuning = FineTuning(
        models,
        strategy,
        feeder=feeder,
        plan=plan,
        lr=spec.lr,
        config=spec.training,
        accelerator=accelerator,
        budget=spec.budget,
        compiler=spec.compiler,
    )
    epoch_end = _EpochEnd(spec, tuning, evaluator, report, choose=choose)
    if checkpoint is not None:
        tuning.resume(checkpoint)
        epoch_end.untold = checkpoint.facts[UNTOLD]
    _run_to_its_end(tuning, epoch_end)


def _plan(spec: TrialSpec, num_images: int, num_workers: int) -> BatchPlan:
    return BatchPlan(
        num_images=num_images,
        batch_size=spec.batch_size,
        num_workers=num_workers,
        seed=spec.seed,
        most_images=spec.budget.images,
    )


def _run_to_its_end(tuning: FineTuning, epoch_end: _EpochEnd) -> None:
    """Train, evaluate and report, or keep where that was suspended."""
    is_first = tuning.accelerator.is_main_process
    with (suspendable if is_first else beside_first)(epoch_end.spec.folder) as is_asked:
        epoch_end.is_asked = is_asked
        try:
            if epoch_end.untold:
                epoch_end.tell(epoch_end.untold)
            tuning.run(epoch_end, is_asked)
        except SuspendedError:
            if is_first:
                epoch_end.keep_suspended()
            raise


def known_costs(spec: TrialSpec, strategy: Strategy) -> dict[str, int]:
    """What a trial costs whatever the machine does: `operations_per_image`, counted on the shapes that it begins with."""
    shapes = base_on_meta(str(resolve_base(spec.base))).for_films_of(spec.resolution_px)
    models = attached(spec, strategy, shapes)
    return {"operations_per_image": operations_per_image(models, strategy, cached=spec.training.cache_latents)}


class _EpochEnd:
    """What a trial does after each epoch: evaluate, report, keep what it could go on from."""

    def __init__(
        self, spec: TrialSpec, tuning: FineTuning, evaluator: Evaluator, report: Report, *, choose: CutChoice
    ) -> None:
        self.spec, self.tuning, self.evaluator, self.report = spec, tuning, evaluator, report
        self._choose = choose
        self.is_asked: Callable[[], bool] = never
        """Whether the trial is to be suspended."""
        self.untold: dict[str, Any] = {}
        """The last report, while it may not have been heard."""
        self._keeper, self._is_reported = Keeper(spec, tuning), True
        counts = spec.counts_operations and tuning.accelerator.is_main_process
        self._known = known_costs(spec, tuning.strategy) if counts else {}

    def __call__(self, epoch: EpochReport) -> None:
        """Take an epoch's measurements."""
        self._is_reported = False
        is_final = epoch.epoch == self.spec.training.num_epochs - 1
        strategy, models = self.tuning.strategy, self.tuning.models
        with self.tuning.evaluated_weights():
            metrics = epoch.as_dict() | self._known | rank_metrics(strategy.ranks(models))
        scores = self._scores(epoch, metrics, is_final) if self.tuning.accelerator.is_main_process else {}
        if self.is_asked():
            raise SuspendedError
        self.tell(metrics | scores | {"final": is_final})
        if self.tuning.accelerator.is_main_process and not is_final:
            self._keeper.keep(untold=self.untold)

    def tell(self, report: dict[str, Any]) -> None:
        """Report: alone, wait until it has been heard; of a group it is on its way for seconds after it went on.

        Raises:
            SuspendedError: who listened has asked for that instead.
        """
        self.untold, self._is_reported = report, True
        if self.tuning.accelerator.num_processes > 1:
            self.report(report)
            return
        unless_asked(lambda: self.report(report), self.is_asked)
        self.untold = {}

    def keep_suspended(self) -> None:
        """Keep where the training was suspended."""
        self._keeper.keep_suspended(is_reported=self._is_reported, untold=self.untold)

    def _scores(self, epoch: EpochReport, metrics: dict[str, Any], is_final: bool) -> dict[str, Any]:
        spec, tuning = self.spec, self.tuning
        evaluator: Evaluator = Suspendable(self.evaluator, self.is_asked)
        evaluator = evaluator if is_final else Forgiving(evaluator)
        score = _timed(evaluator, (epoch.epoch + 1) / spec.training.num_epochs)
        with tuning.evaluated_weights():
            _write_ranks(tuning, spec.folder)
            if not evaluates_after(epoch.epoch, spec.training, spec.rungs):
                return {}
            scores: dict[str, Any] = export_and_score(tuning.models, tuning.strategy, spec.folder, score)
            if not is_final:
                return scores
            cuts = score_cuts(
                tuning.models,
                tuning.strategy,
                spec,
                score=score,
                choose=self._choose,
                metrics=metrics,
                scores=scores,
            )
        return scores | ({CUTS: cuts} if cuts else {})


def _feeder(
    spec: TrialSpec, strategy: Strategy, models: DiffusionModels, dataset: PreparedDataset, *, precision: str
) -> BatchFeeder:
    """Batches of the training films, with what frozen encoders make of them out of the cache."""

    def encoder(part: str) -> DiffusionModels:  # only until the cache is filled
        return attached(spec, strategy, load_base(spec.base, (part,))).to(models.unet.device)

    return BatchFeeder(
        models=models,
        data=dataset.split("train"),
        data_key=f"{dataset.fingerprint}-train",
        trained=strategy.trains,
        cache_folder=spec.cache_folder if spec.training.cache_latents else None,
        caption_dropout=spec.training.caption_dropout,
        augmentation=spec.training.augmentation,
        mixed_precision=precision,
        load=lambda part: models if models.is_loaded(part) else encoder(part),
    )


def _write_ranks(tuning: FineTuning, folder: Path) -> None:
    """Leave the history of the ranks beside the adapter, where they changed."""
    if len(tuning.rank_history) > 1:
        now = {"step": tuning.step, "ranks": tuning.strategy.ranks(tuning.models)}
        earlier = [entry for entry in tuning.rank_history if entry["step"] < tuning.step]
        folder.mkdir(parents=True, exist_ok=True)
        write_ranks([*earlier, now], folder / RANKS)


def _timed(evaluator: Evaluator, share_done: float) -> Score:
    """An evaluation that also gives the `evaluation_s` that the trial waited for it."""

    def score(adapter: Path) -> dict[str, float]:
        started_s = time.perf_counter()
        scores = dict(evaluator.evaluate(adapter, share_done))
        return scores | {"evaluation_s": time.perf_counter() - started_s}

    return score
