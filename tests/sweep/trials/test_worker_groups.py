"""How many workers a trial's group has, without Ray: those that go beside what runs already."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import train

from sweep.config import ComputeConfig
from sweep.trials import tuner
from sweep.trials.resources import Node
from sweep.trials.tuner import SweepContext, worker_group
from trainables.settings import TrainingConfig

BITFIT = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}


class Idle:
    """An evaluator that is not asked."""

    def evaluate(self, adapter: Path, share_done: float) -> dict[str, float]:
        raise AssertionError


@pytest.mark.parametrize(("here", "num_workers"), [("small", 2), ("big", 1)])
def test_a_group_goes_beside_evaluation_and_the_trials_own_process(
    here: str, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list[train.ScalingConfig]()
    monkeypatch.setattr(tuner, "nodes_of_cluster", lambda: [Node("small", 8), Node("big", 16)])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: here))
    monkeypatch.setattr(tuner, "TuneReportCallback", train.UserCallback)  # Tune's own wants a session of Tune
    monkeypatch.setattr(tuner, "TorchTrainer", lambda loop, *, scaling_config, run_config: held.append(scaling_config))
    context = SweepContext(
        base="mini",
        dataset=tmp_path,
        out=tmp_path,
        seed=0,
        objectives=(),
        training=TrainingConfig(num_epochs=1),
        compute=ComputeConfig(workers_per_trial=(1, 3), cpus_per_worker=8),
        evaluation_nodes=("small",),
    )
    worker_group(context.spec("a", BITFIT), Idle(), context)
    assert [one.num_workers for one in held] == [num_workers]
