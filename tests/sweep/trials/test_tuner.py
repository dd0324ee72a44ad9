"""Ray around the train function: real worker groups, reused actors, and trials that fail."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import torch
from optuna import Trial
from optuna.trial import FrozenTrial, TrialState
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from safetensors.torch import load_file
from trials_in_a_row import BITFIT, DIVERGING, DYLORA, LORA, Choices, Events, assert_ranks_are_exported, context

from analysis.front.pareto import Front
from sweep.config import SweepConfig
from sweep.records.journal import Journal
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import REASON, OptunaSearcher
from sweep.trials.ends import TrialEnd
from sweep.trials.relay import Relay
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.tuner import MACHINES_FAULT, _fit, root_cause, run_trials
from trainables import trial as trial_module
from trainables.datasets.store import DataChangedError, PreparedDataset

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules

EVALUATION_S = 0.3


@dataclass(frozen=True)
class ProcessEvaluator:
    """Takes a known time, and tells of the process that it runs in and how many numbers an adapter holds."""

    takes_s: float = EVALUATION_S

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        began_s = time.perf_counter()
        time.sleep(self.takes_s)
        tensors = load_file(adapter / "adapter.safetensors").values()
        return {
            "score": 1.0,
            "process": os.getpid(),
            "base": id(trial_module._warm["mini", "unet"]),
            "size": float(sum(tensor.numel() for tensor in tensors)),
            "began_s": began_s,
            "ended_s": time.perf_counter(),
        }


class FullDisk(Events):
    """A listener that cannot write of a fifth end."""

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        super().on_end(trial_id, end)
        if len(self.ends) == 5:
            raise OSError(28, "No space left on device")


@dataclass(frozen=True)
class Several:
    """What was heard of trials that ran one after the other, where they left their adapters, and how it all ended."""

    events: Events
    out: Path
    error: OSError


@pytest.fixture(scope="module")
def several(ray_cluster: None, dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Several:
    """Five trials of one worker each, evaluated after every epoch; the second is lost, and the listener at the last's end."""
    events, out = FullDisk(), tmp_path_factory.mktemp("several")
    settings = context(dataset, out, evaluate_every_epochs=1)
    choices = Choices(BITFIT, DIVERGING, LORA, BITFIT, DYLORA)
    with pytest.raises(OSError) as ended:
        run_trials(settings, ProcessEvaluator(), choices, listeners=(events,))
    return Several(events, out, ended.value)


def test_a_listener_that_fails_ends_the_sweep_with_its_message(several: Several) -> None:
    assert str(several.error) == "[Errno 28] No space left on device"
    assert len(several.events.ends) == 5


def test_trials_of_one_worker_share_a_process_and_its_base_model(several: Several) -> None:
    """A trial that diverges does not end it either: a new process would import torch and load the base again."""
    ends, reports = list(several.events.ends.values()), [metrics for _, metrics in several.events.reports]
    lost = ends.pop(1)
    assert lost.kind == "failed" and str(lost.reason).startswith("DivergedError: `loss` must stay finite")
    assert ends == [TrialEnd.completed()] * 4
    processes = {metrics["process"] for metrics in reports}
    assert len(processes) == 1 and os.getpid() not in processes
    assert len({metrics["base"] for metrics in reports}) == 1
    assert [(report["epoch"], report["final"]) for report in reports] == [(0, False), (1, True)] * 4


def test_a_reused_process_gives_the_same_trial_the_same_loss(several: Several) -> None:
    losses: dict[str, list[float]] = {}
    for trial_id, metrics in several.events.reports:
        losses.setdefault(trial_id, []).append(metrics["loss"])
    first, second, third, _ = losses.values()
    assert first == third and first != second


def test_evaluation_is_not_charged_to_the_epoch(several: Several) -> None:
    """The last epoch lies between two evaluations, by the clock of the trial's process: reports may arrive late."""
    pairs = [pair for pair in pairwise(metrics for _, metrics in several.events.reports) if pair[1]["epoch"] == 1]
    assert len(pairs) == 4
    for first, second in pairs:
        assert second["epoch_s"] <= second["began_s"] - first["ended_s"]


def test_each_rank_of_one_training_in_a_process_of_many_is_exported_and_scored(several: Several) -> None:
    assert_ranks_are_exported(several.events, several.out, "trial4", ranks=(1, 3))


class Breaking:
    """A tuner in which a listener fails, and that is told to end while it waits for the trials that train."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def fit(self) -> None:
        self.relay._break(OSError("a disk is full"))


def test_who_is_told_to_end_while_trials_keep_where_they_are_does_not_wait_anew() -> None:
    waits = list[int]()

    def wait(running: Collection[str]) -> None:
        waits.append(len(running))
        raise KeyboardInterrupt

    relay = Relay((), (), TrialScheduler(), on_break=wait)
    with pytest.raises(KeyboardInterrupt):
        _fit(Breaking(relay), relay)
    assert waits == [0]


@pytest.mark.parametrize(
    "lost", [WorkerHealthCheckFailedError("a worker died", OSError()), WorkerHealthCheckTimeoutError("a worker hangs")]
)
def test_where_a_worker_is_lost_that_is_the_cause_and_not_what_the_others_then_raise(lost: Exception) -> None:
    waited = RuntimeError("Connection closed by peer")
    cause = root_cause(WorkerGroupError("two failed", {0: waited, 1: lost}))
    assert cause is lost and isinstance(cause, MACHINES_FAULT)
    assert root_cause(WorkerGroupError("one failed", {0: waited})) is waited and not isinstance(waited, MACHINES_FAULT)


DEVICE = torch.AcceleratorError("CUDA error: unspecified launch failure")
MEMORY = OutOfMemoryError("Memory on the node (IP: 10.0.0.1) was 22.4GB / 23.5GB (0.95), above the threshold.")


@dataclass(frozen=True)
class LosesProcess:
    """The first evaluation of each trial loses what its process needs, as every further one in that process would."""

    folder: Path
    losses: Mapping[str, Exception]

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        trial_id = adapter.parent.name
        if not list(self.folder.glob(f"{trial_id}-lost-*")):
            (self.folder / f"{trial_id}-lost-{os.getpid()}").touch()
        if list(self.folder.glob(f"*-lost-{os.getpid()}")):
            raise self.losses[trial_id]
        return {"score": 1.0}


def test_trials_outlive_what_they_lose_and_go_on_in_another_process(
    ray_cluster: None, dataset: PreparedDataset, tmp_path: Path
) -> None:
    """One loses its device and the other the machine's memory."""
    events, settings = Events(), context(dataset, tmp_path, checkpoint_every_s=0)
    evaluator = LosesProcess(tmp_path, {"trial0": DEVICE, "trial1": MEMORY})
    run_trials(settings, evaluator, Choices(BITFIT, BITFIT), listeners=(events,))
    assert events.ends == dict.fromkeys(("trial0", "trial1"), TrialEnd.completed())
    (_, of_device), (_, of_memory) = sorted(events.retries)
    assert of_device.startswith("AcceleratorError: CUDA error: unspecified launch failure")
    told = "`memory` of the machine must suffice for all that runs on it, but got 22.4GB of 23.5GB in use"
    assert of_memory.startswith(told)
    node = ray.get_runtime_context().get_node_id()
    assert sorted(events.places) == [(trial_id, node) for trial_id in ("trial0", "trial0", "trial1", "trial1")]
    reported = [(trial_id, metrics["epoch"]) for trial_id, metrics in events.reports]
    assert sorted(reported) == [("trial0", 0), ("trial0", 1), ("trial1", 0), ("trial1", 1)]


def test_films_that_have_changed_break_the_sweep_off_which_goes_on_when_they_are_back(
    ray_cluster: None, dataset: PreparedDataset, tmp_path: Path
) -> None:
    """A trial that went on would train on what no record tells of; if it ended, so would all others, for good."""
    events, settings = Events(), replace(context(dataset, tmp_path), fingerprint="of then")
    with pytest.raises(RuntimeError, match=r"^`data set` must be the one .* of then, .* Bring the first one back"):
        run_trials(settings, ProcessEvaluator(takes_s=0), Choices(BITFIT, LORA), listeners=(events,))
    assert list(events.starts) == ["trial0"] and not events.ends and not events.retries and not events.reports
    settings = replace(settings, fingerprint=dataset.fingerprint)
    run_trials(settings, ProcessEvaluator(takes_s=0), Choices(BITFIT), listeners=(events,))
    assert list(events.ends.values()) == [TrialEnd.completed()]


def test_a_worker_that_saw_other_films_is_the_cause_and_not_what_the_others_then_raise() -> None:
    waited, changed = RuntimeError("Connection closed by peer"), DataChangedError("`data set` must be the one")
    assert root_cause(WorkerGroupError("two failed", {0: waited, 1: changed})) is changed


class StopsNorm(TrialScheduler):
    """Stops every trial of the norms at its first report."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["choice"]["strategy"]["name"] == "norm":
            return self.stop(trial.config["trial_id"], f"norm after epoch {result['epoch']}", rung=0)
        return str(super().on_trial_result(tune_controller, trial, result))


def risky(trial: Trial, strategies: tuple[str, ...] = ("lora", "norm", "bitfit")) -> dict[str, Any]:
    """LoRA with a learning rate that no loss survives, the others with a sound one."""
    name = trial.suggest_categorical("strategy", strategies)
    lr = 1e30 if name == "lora" else 1e-3
    return {"strategy": {"name": name}, "lr": trial.suggest_float(f"{name}/lr", lr, lr), "batch_size": 9}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A sweep of three trials of which the first diverges and the second is stopped."""

    trials: pd.DataFrame
    front: Front
    searcher: OptunaSearcher
    events: Events

    def state(self, strategy: str) -> TrialState:
        return self.record(strategy).state

    def record(self, strategy: str) -> FrozenTrial:
        return self.searcher.record(self.trials.loc[strategy, "trial_id"])


@pytest.fixture(scope="module")
def ended(ray_cluster: None, dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    out, space, events = tmp_path_factory.mktemp("ended"), risky, Events()
    config = SweepConfig(objectives=("epoch_s",))
    searcher = OptunaSearcher(space, config.reported_objectives(), sampler=SEARCH_SAMPLERS["tpe"], num_trials=3, seed=0)
    journal = Journal.open(out, config, {})
    settings = replace(context(dataset, out, evaluate_every_epochs=1), objectives=("epoch_s",))
    evaluator = ProcessEvaluator(takes_s=0)
    run_trials(settings, evaluator, searcher, listeners=(journal, events), trial_scheduler=StopsNorm())
    front = journal.finish()
    trials = pd.read_parquet(out / "trials.parquet").set_index("strategy")
    return Ended(trials=trials, front=front, searcher=searcher, events=events)


def test_a_trial_that_diverges_fails_and_the_others_go_on(ended: Ended) -> None:
    assert ended.trials["status"].to_dict() == {"lora": "failed", "norm": "stopped", "bitfit": "completed"}
    reason = ended.trials.loc["lora", "reason"]
    assert reason.startswith("DivergedError: `loss` must stay finite, but got nan in epoch 0")
    assert "lr 1e+30 (lora). Lower the learning rate" in reason
    assert (ended.state("lora"), ended.state("bitfit")) == (TrialState.PRUNED, TrialState.COMPLETE)
    assert ended.record("lora").user_attrs[REASON] == reason


def test_a_stopped_trial_is_stopped_everywhere_and_its_process_trains_the_next(ended: Ended) -> None:
    assert ended.trials.loc["norm", ["reason", "rung", "epoch"]].tolist() == ["norm after epoch 0", 0, 0]
    assert {point.strategy for point in ended.front.points} == {"bitfit"}
    assert ended.state("norm") == TrialState.PRUNED
    processes = {metrics["process"] for _, metrics in ended.events.reports}
    assert len(processes) == 1 and len({trial_id for trial_id, _ in ended.events.reports}) == 2
