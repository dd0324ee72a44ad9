"""Ray Tune around the train function: actors that serve many trials."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
import ray.train
import torch
from ray import tune
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.train import ControllerError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import (
    RayTrainError,  # all that lost and hanging workers have in common
    WorkerGroupStartupTimeoutError,
)
from ray.tune.execution import tune_controller
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from analysis.front.objectives import OPERATIONS
from analysis.run_folder import CACHE
from sweep.config import ComputeConfig
from sweep.interrupts import has_come
from sweep.trials.ends import BREAKS, FAILURE, LOST, EvaluatorLostError, TrialListener
from sweep.trials.leftovers import EndedCheckpoints
from sweep.trials.memory_kills import out_of_memory
from sweep.trials.orphans import OrphanedGroups
from sweep.trials.relay import Relay, root_message
from sweep.trials.resources import fewest_workers, most_workers, trial_resources, worker_resources, workers_of_trial
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.suggestions import Suggestion
from sweep.trials.waiting import nodes_of_cluster, place_of
from trainables.budgets import NO_BUDGET, Budget
from trainables.cuts import CutChoice, one_by_one
from trainables.datasets.files import full_disk_named
from trainables.datasets.sharded import CacheNotWritableError
from trainables.datasets.store import DataChangedError
from trainables.settings import TrainingConfig
from trainables.suspending import SuspendedError, forget_marks, suspend
from trainables.trial import EvaluationError, Evaluator, Report, TrialSpec, fine_tune

TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""The sweep draws its own progress and writes its own journal; Ctrl+C ends it instead of passing for its end."""
SUSPENDED_WITHIN_S: Final = 8.0
"""Seconds that trials have to keep where they are when the sweep ends; more where a step takes longer, unless SIGTERM ends it:
whoever sends that may kill it 10 s later."""
SUSPENDING: Final = (
    "The sweep ends. Trials that train keep where they are, for at most {:.0f} s; a second signal ends it at once."
)
BREAKING: Final = (CacheNotWritableError, DataChangedError, EvaluatorLostError)
"""What would end every further trial too, so that it ends the sweep, which goes on once it is mended."""
MACHINES_FAULT: Final = (OSError, RayError, RayTrainError, torch.AcceleratorError, SuspendedError)
"""What ends an attempt at a trial without being the fault of its configuration; the trial is tried again."""


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """What all trials of a sweep share; every process that works on the sweep sees these folders.

    Attributes:
        base: a hub id, a folder, or `mini`.
        dataset: folder of the prepared data set.
        out: the run directory.
        seed: the seed of all trials, so that they differ by their configurations alone.
        objectives: names of what a trial must report at its end to be complete.
        training: settings that all trials share.
        compute: what a trial may use.
        rungs: epochs after which trials are evaluated too, since a trial scheduler compares them.
        budget: how far each trial is trained.
        fingerprint: of the data set, as the log has it; None: it may be any.
        evaluation_nodes: where evaluation actors run; None where it is not known.
        latents: where latents and prompt states are kept; None: in the run directory.
        resolution_px: side of the films; None: the base's own.
        choose_cut: says which smaller adapters of a training are worth scoring.
    """

    base: str
    dataset: Path
    out: Path
    seed: int
    objectives: tuple[str, ...]
    training: TrainingConfig
    compute: ComputeConfig
    rungs: tuple[int, ...] = ()
    budget: Budget = NO_BUDGET
    fingerprint: str | None = None
    evaluation_nodes: tuple[str | None, ...] = ()
    latents: Path | None = None
    resolution_px: int | None = None
    choose_cut: CutChoice = one_by_one

    def trial_folder(self, trial_id: str) -> Path:
        """Where a trial leaves its adapter and samples."""
        return self.out / "trials" / trial_id

    def spec(self, trial_id: str, choice: Mapping[str, Any]) -> TrialSpec:
        """The trial that the search sampler chose."""
        return TrialSpec(
            base=self.base,
            resolution_px=self.resolution_px,
            dataset=self.dataset,
            fingerprint=self.fingerprint,
            folder=self.trial_folder(trial_id),
            cache_folder=self.latents or self.out / CACHE,
            seed=self.seed,
            training=self.training,
            rungs=self.rungs,
            budget=self.budget,
            counts_operations=OPERATIONS in self.objectives,
            compiler=self.compute.compiler,
            **choice,
        )


def run_trial(config: dict[str, Any], *, context: SweepContext, evaluator: Evaluator) -> None:
    """One attempt at a trial: Ray Train in this very process for one worker, a group of worker processes for several.

    What is the fault of the trial's configuration is reported, since an exception would end this process too, and the
    next trial would wait for torch and the base model again; so is what breaks the sweep. What is the machine's fault is
    raised.

    Args:
        config: a `Suggestion`, as Tune carries it.
        context: what all trials share.
        evaluator: scores adapters.

    Raises:
        OSError, RayError, RayTrainError, AcceleratorError: a disk, a process, a machine or a device was lost; where it was
            the device, only another process can compute on it again.
        SuspendedError: it was asked to end; of a sweep that does not, it is tried again.
    """
    suggestion = Suggestion.of_config(config)
    spec = context.spec(suggestion.trial_id, suggestion.choice)
    spec.folder.mkdir(parents=True, exist_ok=True)
    try:
        if most_workers(context.compute) == 1:
            alone = ray.train.ScalingConfig(num_workers=0)
            TorchTrainer(lambda: attempt(spec, evaluator, tune.report, context.choose_cut), scaling_config=alone).fit()
        else:
            fit_group(spec, evaluator, context)
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, MACHINES_FAULT):
            if isinstance(cause, OSError) and cause is not error:
                raise cause from error  # a group's own words end with what its other workers said
            raise
        if isinstance(cause, BREAKING):
            tune.report({FAILURE: str(cause), BREAKS: True})
            return
        said = f"{type(cause).__name__}: {cause}"
        tune.report({FAILURE: out_of_memory(said) or said, LOST: isinstance(cause, EvaluationError)})


def attempt(spec: TrialSpec, evaluator: Evaluator, report: Report, choose: CutChoice) -> None:
    """What a worker of a trial does.

    Args:
        spec: what to train.
        evaluator: scores adapters.
        report: takes each epoch's metrics.
        choose: says which smaller adapters are worth scoring.
    """
    with full_disk_named(spec.folder):
        fine_tune(spec, evaluator, report, choose)


def root_cause(error: BaseException) -> BaseException:
    """What a worker of a trial raised, out of what Ray Train made of it.

    Where one worker is lost, the others fail too, as they wait for it in vain: the loss is the cause.
    """
    if not isinstance(error, WorkerGroupError) or not error.worker_failures:
        return error
    failures = list(error.worker_failures.values())
    return next((failure for failure in failures if isinstance(failure, (*MACHINES_FAULT, *BREAKING))), failures[0])


def fit_group(spec: TrialSpec, evaluator: Evaluator, context: SweepContext) -> None:
    """An attempt with a group of workers, which is laid anew where it has waited for its room in vain.

    A node that has just died counts as alive for a while, and what others use counts as free: a group of as many workers
    would wait for ever, so that the next has one less, down to the fewest.

    Args:
        spec: the trial.
        evaluator: scores what the first worker exports.
        context: of the sweep; its `compute` says how many workers there may be.
    """
    most = most_workers(context.compute)
    while True:
        trainer = worker_group(spec, evaluator, context, most)
        try:
            trainer.fit()
            return
        except ControllerError as error:
            if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
                raise
            most = max(fewest_workers(context.compute), trainer.scaling_config.num_workers - 1)


class GroupTrainer(TorchTrainer):  # type: ignore[misc]  # Ray ships no types
    """Ray Train's trainer without its data sets and its cleaner of placement groups, in whose place `OrphanedGroups` is.

    Each is a process more for each attempt. Where a controller has died on a cluster without a dashboard, the cleaner
    neither removes anything nor ends (Ray 2.60); of Ray's data sets a trial has none.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback | DatasetsCallback)]


def worker_group(spec: TrialSpec, evaluator: Evaluator, context: SweepContext, most: int) -> GroupTrainer:
    """A trainer with processes of its own, as many as there is room for now; rank 0's reports reach Tune.

    Args:
        spec: what to train.
        evaluator: scores adapters.
        context: what all trials share.
        most: workers, however many there is room for.
    """
    compute = context.compute
    here = ray.get_runtime_context().get_node_id()
    num_workers = workers_of_trial(nodes_of_cluster(), compute, evaluation_nodes=context.evaluation_nodes, here=here)
    return GroupTrainer(
        lambda: attempt(spec, evaluator, ray.train.report, context.choose_cut),
        scaling_config=ray.train.ScalingConfig(
            num_workers=min(num_workers, most),
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker=worker_resources(compute),
        ),
        run_config=ray.train.RunConfig(
            name=spec.folder.name,
            storage_path=str(context.out / "ray"),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(controller_failure_limit=0),  # `fit_group` tries again
        ),
    )


def run_trials(
    context: SweepContext,
    evaluator: Evaluator,
    searcher: Searcher,
    *,
    listeners: Sequence[TrialListener],
    trial_scheduler: TrialScheduler | None = None,
    losses: Mapping[str, int] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Run the sweep's trials to their end; a failed trial is heard of by the listeners and the others go on.

    Where the sweep is told to end, or breaks off, trials that train keep where they are before it does.

    Args:
        context: what trials share.
        evaluator: given to every trial.
        searcher: chooses configurations as `Suggestion`s until it is finished; a TrialListener too, which hears of each
            event after all others.
        listeners: called in this process, in the order given.
        trial_scheduler: stops trials early; without one, all run to their end.
        losses: of a sweep that goes on, how often each trial that has not ended lost its process or machine.
        tell: takes a line about what is waited for.

    Raises:
        Exception: a listener failed, for example because the disk is full.
        KeyboardInterrupt: the sweep was told to end.
        RuntimeError: Tune itself failed, or nothing can be trained or scored any more: `BREAKING`.
    """
    set_up_tune()
    trial_scheduler, ended = trial_scheduler or TrialScheduler(), EndedCheckpoints(context.trial_folder)
    relay = Relay(
        (*listeners, ended, searcher),
        context.objectives,
        trial_scheduler,
        max_retries=context.compute.max_retries,
        losses=losses,
        on_break=partial(_suspend, context, tell),
        before_start=partial(_forget_marks, context),
        place_of=place_of,
    )
    orphans, has_groups = OrphanedGroups(), most_workers(context.compute) > 1
    trainable = tune.with_parameters(run_trial, context=context, evaluator=evaluator)
    tuner = tune.Tuner(
        tune.with_resources(trainable, trial_resources(context.compute)),
        tune_config=_tune_config(context, searcher, trial_scheduler, reuse_actors=not has_groups),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(context.out / "ray"),
            callbacks=[relay, orphans] if has_groups else [relay],
            verbose=0,
        ),
    )
    try:
        _fit(tuner, relay)
    finally:
        if has_groups:
            orphans.remove()
        ended.remove_again()


def _suspend(context: SweepContext, tell: Callable[[str], None], running: Collection[str]) -> None:
    """Have trials keep where they are; whoever sends SIGTERM kills soon after, and does not wait for a long step."""
    suspend(
        map(context.trial_folder, running),
        SUSPENDED_WITHIN_S,
        on_wait=lambda within_s: tell(SUSPENDING.format(within_s)),
        waits_for_steps=not has_come(signal.SIGTERM),
    )


def _forget_marks(context: SweepContext, trial_id: str) -> None:
    """Where the sweep ends before a trial trains, nobody waits for a process that was killed in that trial's folder."""
    with suppress(OSError):  # it would only be waited for
        forget_marks(context.trial_folder(trial_id))


def set_up_tune() -> None:
    """Have Tune keep its words and files to itself, and take an actor that Ray ended for want of memory for a lost one.

    Listeners tell of failures, in a line each. By itself Tune ends the sweep over such an actor: one of its modules asks
    for the kind of a loss when it hears of it, the other once more for a trial that was training.
    """
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    for module in (actor_manager, tune_controller):
        module.RayActorError = (RayActorError, OutOfMemoryError)


def _tune_config(
    context: SweepContext, searcher: Searcher, trial_scheduler: TrialScheduler, *, reuse_actors: bool
) -> tune.TuneConfig:
    """How Tune goes about it; a trial's process that waits for a group of workers cannot be reset for the next trial."""
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=trial_scheduler,
        num_samples=-1,  # the searcher says when it is finished
        reuse_actors=reuse_actors,
        max_concurrent_trials=context.compute.concurrent_trials,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def _fit(tuner: tune.Tuner, relay: Relay) -> None:
    """Run Tune, and raise what went wrong as it was: of a listener's exception Tune keeps the trace, or nothing."""
    try:
        tuner.fit()
    except KeyboardInterrupt:
        if relay.broken is None:  # else it was told to end while it waited for trials, and waits no more
            relay.on_break(relay.running)
        raise
    except Exception as error:
        if relay.broken is None:
            raise RuntimeError(root_message(str(error))) from error
    if relay.broken is not None:
        raise relay.broken
