"""Groups of workers that train a trial together: as one does, and whatever of them dies."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from patience import LONG_S, until
from ray._private.node import Node
from ray._private.state import actors
from ray.train import ControllerError, ScalingConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group
from recording import DIES, SLOW, WAITS, RecordingEvaluator, recorded_here, second
from second_node import second_node
from trials_in_a_row import BITFIT, DYLORA, Choices, Events, assert_ranks_are_exported, context

from sweep.interrupts import interruptible
from sweep.trials import tuner
from sweep.trials.ends import TrialEnd
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.tuner import SweepContext, run_trials
from trainables.checkpoints import FOLDER as CHECKPOINTS
from trainables.checkpoints import read_checkpoint
from trainables.datasets.store import PreparedDataset

ALL_RANKS = {**DYLORA, "strategy": {"name": "dylora", "rank": 4, "alpha": 8}}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a run with the recording evaluator left."""

    events: Events
    folder: Path
    trial_id: str = "trial0"

    def workers(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("worker-*.json"))]

    def parameters(self, rank: int) -> dict[str, torch.Tensor]:
        return dict(torch.load(self.folder / f"worker-{rank}.pt", weights_only=True))

    def reports(self) -> list[Mapping[str, Any]]:
        return [metrics for trial_id, metrics in self.events.reports if trial_id == self.trial_id]

    def by_epoch(self, name: str) -> dict[int, Any]:
        """A value of the reports; one that a group had on its way when it was lost is repeated."""
        return {metrics["epoch"]: metrics[name] for metrics in self.reports()}

    def losses(self) -> list[float]:
        return list(self.by_epoch("loss").values())

    def firsts(self) -> list[list[list[int]]]:
        """The images that the two workers of each attempt began with."""
        began = [json.loads(file.read_text()) for file in sorted(self.folder.glob("began-*.json"))]
        return [sorted(began[place : place + 2]) for place in range(0, len(began), 2)]


class StopsOne(TrialScheduler):
    """Stops the second trial at its first report."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if trial.config["trial_id"] == "trial1":
            return self.stop("trial1", "it was the second", rung=0)
        return super().on_trial_result(tune_controller, trial, result)


@pytest.fixture(scope="module")
def out_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers2")


@pytest.fixture(scope="module")
def recorded(
    ray_cluster: None, dataset: PreparedDataset, out_of_two: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Recorded]:
    """The same trial with one worker, as a trial's process calls it, and with a group of two, by number of workers.

    Before that group there were one whose ranks are cut, and one that was stopped.
    """
    alone = tmp_path_factory.mktemp("workers1")
    runs = {
        1: Recorded(events=Events(), folder=alone / "recorded"),
        2: Recorded(events=Events(), folder=out_of_two / "recorded", trial_id="trial2"),
    }
    spec, report = context(dataset, alone).spec("trial0", BITFIT), runs[1].events.on_report
    recorded_here(spec, runs[1].folder, lambda metrics: report("trial0", metrics))
    settings = replace(context(dataset, out_of_two, workers=2), choose_cut=second)
    run_trials(
        settings,
        RecordingEvaluator(runs[2].folder),
        Choices(ALL_RANKS, BITFIT, BITFIT),
        listeners=(runs[2].events,),
        trial_scheduler=StopsOne(),
    )
    return runs


def test_a_group_that_is_stopped_makes_room_for_the_next(recorded: dict[int, Recorded]) -> None:
    assert recorded[2].events.ends == {
        "trial0": TrialEnd.completed(),
        "trial1": TrialEnd.stopped("it was the second", 0),
        "trial2": TrialEnd.completed(),
    }


def test_ranks_that_are_worth_it_of_one_training_by_two_workers_are_exported_and_scored(
    recorded: dict[int, Recorded], out_of_two: Path
) -> None:
    assert_ranks_are_exported(recorded[2].events, out_of_two, "trial0", ranks=(2,))


def test_two_workers_are_two_processes_of_one_group(recorded: dict[int, Recorded]) -> None:
    workers = recorded[2].workers()
    assert [worker["world"] for worker in workers] == [2, 2]
    assert len({os.getpid(), *(worker["process"] for worker in workers)}) == 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_epoch_sees_every_image_exactly_once(
    recorded: dict[int, Recorded], dataset: PreparedDataset, num_workers: int
) -> None:
    num_images, workers = len(dataset.split("train")), recorded[num_workers].workers()
    assert num_images % BITFIT["batch_size"] >= num_workers  # type: ignore[operator]  # no worker idles in the last batch
    steps = -(-num_images // BITFIT["batch_size"])  # type: ignore[operator]
    for epoch in range(2):
        seen = [i for worker in workers for step in worker["seen"][epoch * steps : (epoch + 1) * steps] for i in step]
        assert sorted(seen) == list(range(num_images))
    assert all(len(worker["seen"]) == 2 * steps for worker in workers)


def test_both_workers_end_with_the_same_parameters(recorded: dict[int, Recorded]) -> None:
    first, second = recorded[2].parameters(0), recorded[2].parameters(1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_workers_train_as_one_does(recorded: dict[int, Recorded]) -> None:
    """The loss over all workers and the trained weights do not tell how many."""
    assert recorded[2].losses() == pytest.approx(recorded[1].losses(), rel=1e-4)
    single, two = recorded[1].parameters(0), recorded[2].parameters(0)
    for name in single:
        torch.testing.assert_close(two[name], single[name], rtol=1e-2, atol=1e-4)


def interrupt_once(slow: Path, over: threading.Event) -> None:
    """Tell this process to end, as Ctrl+C does, once a training is slow, unless that is over."""
    until(lambda: slow.exists() or over.is_set())
    if not over.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def end_trials() -> None:
    """End what an interrupted sweep leaves of its trials, which goes with its process."""
    for name, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


class KillsTrial(Events):
    """A listener that kills the trial's own process, beside its workers, at its first report, and then has a worker die."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        super().on_report(trial_id, metrics)
        if len(self.reports) == 1:
            for process in actors(actor_state_name="ALIVE").values():
                if "Implicit" in process["ActorClassName"]:
                    os.kill(process["Pid"], signal.SIGKILL)

    def on_place(self, trial_id: str, node: str, address: str) -> None:
        super().on_place(trial_id, node, address)
        if len(self.places) == 2:
            (self.folder / DIES).touch()


def test_a_group_goes_on_to_the_same_bits_where_it_is_suspended_its_trial_dies_and_a_worker_of_it_dies(
    recorded: dict[int, Recorded], dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first epoch, at its end, and at the end of the second, which is therefore trained anew.

    Suspended, both workers keep the step at which they were told to end, and begin with what they had not seen. The cluster
    has no room for two groups, and no dashboard, which Ray Train's own cleaner asks. Of one or two workers there is room
    for two.
    """
    whole, first = recorded[2], RecordingEvaluator(tmp_path / "first", slow_after=2)
    settings = context(dataset, tmp_path, workers=(1, 2), checkpoint_every_s=0)
    suspend_once(settings, first, monkeypatch)
    kept, steps = read_checkpoint(settings.trial_folder("trial0")), len(whole.workers()[0]["seen"]) // 2
    assert kept is not None and 2 < kept.facts["step"] < steps and kept.facts["next_epoch"] == 0
    folder = tmp_path / "recorded"
    folder.mkdir()
    run = Recorded(events=KillsTrial(folder), folder=folder)
    run_trials(settings, RecordingEvaluator(folder), Choices(BITFIT), listeners=(run.events,))
    assert list(run.events.ends.values()) == [TrialEnd.completed()] and len(run.events.retries) == 2
    assert not (folder / DIES).exists() and not (settings.trial_folder("trial0") / CHECKPOINTS).exists()
    assert list(run.by_epoch("epoch")) == [0, 1]
    assert run.losses() == whole.losses()
    due = [sorted(worker["seen"][step] for worker in whole.workers()) for step in (kept.facts["step"], steps, steps)]
    assert run.firsts() == due
    for worker, same in zip(run.workers(), whole.workers(), strict=True):
        assert worker["seen"] == same["seen"][len(same["seen"]) // 2 :]
    parameters = whole.parameters(0)
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in run.parameters(0).items())
    until(lambda: ray.available_resources().get("CPU", 0.0) >= ray.cluster_resources()["CPU"])


def suspend_once(settings: SweepContext, evaluator: RecordingEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a trial until it is slow and has kept where it is."""
    monkeypatch.setattr(tuner, "SUSPENDED_WITHIN_S", LONG_S)
    over = threading.Event()
    telling = threading.Thread(target=interrupt_once, args=(evaluator.folder / SLOW, over))
    with pytest.raises(KeyboardInterrupt), interruptible():
        telling.start()
        try:
            run_trials(settings, evaluator, Choices(BITFIT), listeners=(Events(),))
        finally:
            over.set()
            telling.join()  # no signal comes after the block
    end_trials()


def lose_once(waits: Path, node: Node) -> None:
    """Let a node go as a machine does that is taken back, once an evaluation waits."""
    until(waits.exists)
    node.kill_all_processes(check_alive=False, allow_graceful=True)


def test_an_elastic_group_whose_node_goes_is_one_worker_from_its_checkpoint_on(
    recorded: dict[int, Recorded], ray_address: str, dataset: PreparedDataset, tmp_path: Path
) -> None:
    """Each node has room for one worker; the first epoch is shared by two, the last one is trained anew by one alone."""
    run, cpus = Recorded(events=Events(), folder=tmp_path / "recorded"), ray.cluster_resources()["CPU"] - 1
    settings = context(dataset, tmp_path, workers=(1, 2), checkpoint_every_s=0)
    settings = replace(settings, compute=settings.compute.model_copy(update={"cpus_per_worker": cpus}))
    with second_node(ray_address, cpus) as node:
        losing = threading.Thread(target=lose_once, args=(run.folder / WAITS, node))
        losing.start()
        run_trials(settings, RecordingEvaluator(run.folder, waits=True), Choices(BITFIT), listeners=(run.events,))
        losing.join()
    assert list(run.events.ends.values()) == [TrialEnd.completed()] and len(run.events.retries) == 1
    assert run.by_epoch("num_workers") == {0: 2, 1: 1}
    (alone,), single = run.workers(), recorded[1]
    assert alone["world"] == 1
    assert alone["seen"] == single.workers()[0]["seen"][len(alone["seen"]) :]
    assert run.losses() == pytest.approx(single.losses(), rel=1e-4)


@dataclass(frozen=True)
class Attempt:
    """A trainer that fails."""

    error: Exception | None
    scaling_config: ScalingConfig

    def fit(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.slow
def test_a_group_that_finds_no_room_is_laid_anew_and_what_else_fails_is_raised(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, a node that dies before its group starts, is among the sweeps that `make chaos` breaks."""
    waited, broken = WorkerGroupStartupTimeoutError(2), WorkerGroupStartupFailedError("a node died")
    for errors in ([ControllerError(waited), None], [ControllerError(waited), ControllerError(broken)]):
        left, asked = list(errors), list[int]()

        def group(*given: Any, left: list[Any] = left, asked: list[int] = asked) -> Attempt:
            asked.append(given[-1])
            return Attempt(left.pop(0), ScalingConfig(num_workers=given[-1]))

        monkeypatch.setattr(tuner, "worker_group", group)
        settings = context(dataset, tmp_path, workers=(1, 2))
        given = settings.spec("one", BITFIT), RecordingEvaluator(tmp_path), settings
        with nullcontext() if errors[-1] is None else pytest.raises(ControllerError, match="a node died"):
            tuner.fit_group(*given)
        assert left == [] and asked == [2, 1]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_first_worker_reports_each_epoch_and_its_evaluation(
    recorded: dict[int, Recorded], num_workers: int
) -> None:
    run = recorded[num_workers]
    reports = run.reports()
    assert [report["epoch"] for report in reports] == [0, 1]
    assert [report["final"] for report in reports] == [False, True]
    assert ["score" in report for report in reports] == [False, True]
    assert len(list(run.folder.glob(f"evaluation-{run.trial_id}-*"))) == 1
