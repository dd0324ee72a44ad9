"""How many workers a trial's group has, without Ray: those that go beside what runs already."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import train
from ray.train import WorkerGroupError

from sweep.config import ComputeConfig
from sweep.trials import tuner
from sweep.trials.full_disks import is_full
from sweep.trials.relay import root_message
from sweep.trials.resources import Node
from sweep.trials.suggestions import Suggestion
from sweep.trials.tuner import SweepContext, run_trial, worker_group
from trainables.settings import TrainingConfig

BITFIT = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}


class Idle:
    """An evaluator that is not asked."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        raise AssertionError


def elastic(folder: Path) -> SweepContext:
    return SweepContext(
        base="mini",
        dataset=folder,
        out=folder,
        seed=0,
        objectives=(),
        training=TrainingConfig(num_epochs=1),
        compute=ComputeConfig(workers_per_trial=(1, 3), cpus_per_worker=8),
        evaluation_nodes=("small",),
    )


@pytest.mark.parametrize(("here", "num_workers"), [("small", 2), ("big", 1)])
def test_a_group_goes_beside_evaluation_and_the_trials_own_process(
    here: str, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = list[train.ScalingConfig]()
    monkeypatch.setattr(tuner, "nodes_of_cluster", lambda: [Node("small", 8), Node("big", 16)])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: here))
    monkeypatch.setattr(tuner, "TuneReportCallback", train.UserCallback)  # Tune's own wants a session of Tune
    monkeypatch.setattr(
        tuner, "TorchTrainer", lambda loop, *, scaling_config, run_config: configs.append(scaling_config)
    )
    context = elastic(tmp_path)
    worker_group(context.spec("a", BITFIT), Idle(), context)
    assert [config.num_workers for config in configs] == [num_workers]


def test_the_reason_of_a_lost_group_is_the_loss_and_not_what_the_others_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: dict[int, Exception] = {
        0: OSError(28, "No space left on device", "/runs/a"),
        1: RuntimeError("Connection closed by peer"),
    }
    said = "\n".join(f"{type(failure).__name__}: {failure}" for failure in failures.values())

    def fit() -> None:
        raise WorkerGroupError(said, failures)

    monkeypatch.setattr(tuner, "worker_group", lambda *given: SimpleNamespace(fit=fit))
    config = Suggestion(trial_id="a", number=0, choice=BITFIT).as_config()
    with pytest.raises((OSError, WorkerGroupError)) as lost:
        run_trial(config, context=elastic(tmp_path), evaluator=Idle())
    reason = root_message("".join(traceback.format_exception(lost.value)))
    assert is_full(reason) and reason == "OSError: [Errno 28] No space left on device: '/runs/a'"
