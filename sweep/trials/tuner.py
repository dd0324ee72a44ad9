"""Ray Tune around the train function: actors that serve many trials, and what their events become."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.error import TuneError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from sweep.config import ComputeConfig
from sweep.search.searcher import FAILURE
from trainables.settings import TrainingConfig
from trainables.training import DivergedError
from trainables.trial import CUTS, EvaluationError, Evaluator, TrialSpec, cut_name, fine_tune

TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""The sweep draws its own progress and writes its own journal; Ctrl+C ends it instead of passing for its end."""


@dataclass(frozen=True, kw_only=True)
class SweepContext:
    """What all trials of a sweep share; every process that works on the sweep sees these folders."""

    base: str
    dataset: Path
    out: Path
    seed: int
    training: TrainingConfig
    compute: ComputeConfig

    def trial_folder(self, trial_id: str) -> Path:
        """Where a trial leaves its adapter and samples."""
        return self.out / "trials" / trial_id

    def spec(self, trial_id: str, choice: Mapping[str, Any]) -> TrialSpec:
        """The trial that the search sampler chose."""
        return TrialSpec(
            base=self.base, dataset=self.dataset, folder=self.trial_folder(trial_id), cache_folder=self.out / "cache",
            seed=self.seed, training=self.training, **choice,
        )  # fmt: skip


class TrialListener(Protocol):
    """Hears of every trial, in the process that started the sweep."""

    def on_start(self, trial_id: str, choice: Mapping[str, Any]) -> None:
        """A trial begins with what the search sampler chose."""

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """A trial finished an epoch."""

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """A trial's training yielded a smaller adapter too; `choice` and `metrics` are as of a trial of its own."""

    def on_end(self, trial_id: str, error: str | None) -> None:
        """A trial is over; `error` says why it failed."""


def run_trial(choice: dict[str, Any], *, context: SweepContext, evaluator: Evaluator) -> None:
    """One Tune trial: Ray Train in this very process for one worker, a group of worker processes for several."""
    spec = context.spec(tune.get_context().get_trial_id(), choice)
    spec.folder.mkdir(parents=True, exist_ok=True)
    if context.compute.workers_per_trial == 1:
        trainer = TorchTrainer(
            lambda: fine_tune(spec, evaluator, tune.report), scaling_config=ray.train.ScalingConfig(num_workers=0)
        )
    else:
        trainer = worker_group(spec, evaluator, context)
    try:
        trainer.fit()
    except (DivergedError, EvaluationError) as error:
        # An exception would end this process too, and the next trial would wait for torch and the base model again.
        tune.report({FAILURE: f"{type(error).__name__}: {error}"})


def worker_group(spec: TrialSpec, evaluator: Evaluator, context: SweepContext) -> TorchTrainer:
    """A trainer with processes of its own; rank 0's reports reach Tune."""
    compute = context.compute
    return TorchTrainer(
        lambda: fine_tune(spec, evaluator, ray.train.report),
        scaling_config=ray.train.ScalingConfig(
            num_workers=compute.workers_per_trial,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker=_worker_resources(compute),
        ),
        run_config=ray.train.RunConfig(
            name=spec.folder.name, storage_path=str(context.out / "ray"), callbacks=[TuneReportCallback()]
        ),
    )


def _worker_resources(compute: ComputeConfig) -> dict[str, float]:
    gpus = {"GPU": compute.gpus_per_worker} if compute.gpus_per_worker else {}
    return {"CPU": compute.cpus_per_worker, **gpus}


def _trial_resources(compute: ComputeConfig) -> dict[str, float]:
    """What the trial's own process holds: the worker's share, or next to nothing beside a worker group."""
    return _worker_resources(compute) if compute.workers_per_trial == 1 else {"CPU": 0.01}


def run_trials(
    context: SweepContext,
    evaluator: Evaluator,
    searcher: Searcher,
    *,
    num_trials: int,
    listeners: Sequence[TrialListener],
) -> None:
    """Run the sweep's trials to their end; a failed trial is heard of by the listeners and the others go on.

    Args:
        context: what trials share.
        evaluator: given to every trial.
        searcher: chooses configurations.
        num_trials: how many.
        listeners: called in this process, in the order given.

    Raises:
        OSError, RuntimeError: a listener failed, for example because the disk is full.
    """
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # listeners tell of failures, in a line each
    trainable = tune.with_parameters(run_trial, context=context, evaluator=evaluator)
    tuner = tune.Tuner(
        tune.with_resources(trainable, _trial_resources(context.compute)),
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=num_trials, max_concurrent_trials=context.compute.concurrent_trials,
            reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(context.out / "ray"), callbacks=[_Relay(listeners)], verbose=0),
    )  # fmt: skip
    try:
        tuner.fit()
    except TuneError as error:  # holds the trace of what a listener raised
        raise RuntimeError(root_message(str(error))) from error


class _Relay(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Turns Tune's callbacks into the sweep's events."""

    def __init__(self, listeners: Sequence[TrialListener]) -> None:
        self._listeners = tuple(listeners)
        self._started: set[str] = set()

    def __reduce__(self) -> tuple[type[_Relay], tuple[Sequence[TrialListener]]]:
        return _Relay, ((),)  # Tune pickles its callbacks for its own restore; the listeners stay in this process

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ensure_started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for listener in self._listeners if FAILURE not in result else ():
            listener.on_report(trial.trial_id, result)
            for label, cut in result.get(CUTS, {}).items():
                choice = {**trial.config, "strategy": cut["strategy"]}
                listener.on_cut(cut_name(trial.trial_id, label), trial.trial_id, choice, cut)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, trial.last_result.get(FAILURE))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, root_message(_recorded_error(trial)))

    def _ensure_started(self, trial: Any) -> None:
        """Tune does not tell the start of a trial whose process died before it."""
        if trial.trial_id not in self._started:
            self._started.add(trial.trial_id)
            for listener in self._listeners:
                listener.on_start(trial.trial_id, trial.config)

    def _end(self, trial: Any, error: str | None) -> None:
        self._ensure_started(trial)
        for listener in self._listeners:
            listener.on_end(trial.trial_id, error)


def _recorded_error(trial: Any) -> str:
    """What Tune wrote of a failure; it is in the trial's own folder at once, and in the storage, where Tune looks, later."""
    file = Path(trial.error_file or "")
    return file.read_text() if file.is_file() else "the trial's process died without a message"


def root_message(trace: str) -> str:
    """The message of the exception that a printed trace, Ray's included, ends with."""
    raised = [
        line.strip() for line in trace.splitlines() if re.match(r"^\s*[\w.]*(Error|Exception|Interrupt)\b.*:", line)
    ]
    last = raised[-1] if raised else trace.strip().splitlines()[-1]
    return re.sub(r"^(?:[a-z_]\w*\.)+(?=\w)", "", last)
