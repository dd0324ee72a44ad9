"""Evaluations that fail, in scorers whose faults are known."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle
from ray.exceptions import ActorUnavailableError

from sweep.scoring import actors
from sweep.scoring.actors import ActorEvaluator
from sweep.scoring.desk import Desk
from sweep.scoring.scorer import ended_with_its_device
from sweep.trials.tuner import MACHINES_FAULT
from trainables.trial import EvaluationError

NOT_FINITE = ValueError("`images` must be finite, but got NaN")


class Moody:
    """A scorer whose first attempts fail."""

    def __init__(self, num_failures: int, error: Exception = NOT_FINITE) -> None:
        self.left, self.error = num_failures, error

    def score(self, adapter: Path, samples: Path, *more: object) -> dict[str, float]:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return {"fid_none": 2.0}


class Away:
    """The handle of a scorer that is away for some calls, as one whose node has died is until Ray sees it."""

    def __init__(self, num_calls: int, scorer: Any) -> None:
        self.left, self.scorer, self.score, self._actor_id = num_calls, scorer, self, scorer._actor_id

    def remote(self, *arguments: object) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise ActorUnavailableError("connection refused", None)
        return self.scorer.score.remote(*arguments)


def test_a_scorer_that_is_away_is_waited_for_and_that_is_no_failure(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorer = ray.remote(Moody).options(num_cpus=0).remote(1)
    monkeypatch.setattr(actors, "LOOK_S", 0.01)
    assert ActorEvaluator((Away(5, scorer),)).evaluate(tmp_path / "adapter", 1.0) == {"fid_none": 2.0}
    with pytest.raises(ActorUnavailableError, match="connection refused"):
        ActorEvaluator((Away(5, scorer),), away_s=0.03).evaluate(tmp_path / "adapter", 1.0)


def test_a_scorer_for_which_there_is_no_room_is_the_machines_fault(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps calls of an actor that is not placed for ever: the trial itself may hold what it waits for."""
    monkeypatch.setattr(actors, "LOOK_S", 0.01)
    scorer = ray.remote(Moody).options(num_cpus=1000).remote(0)
    with pytest.raises(ActorUnavailableError, match="no node has had room") as lost:
        ActorEvaluator((scorer,), away_s=0.5).evaluate(tmp_path / "adapter", 1.0)
    assert isinstance(lost.value, MACHINES_FAULT)


def test_a_failed_evaluation_is_tried_once_more(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules
    scorers = {count: ray.remote(Moody).options(num_cpus=0).remote(count) for count in (1, 2)}
    assert ActorEvaluator((scorers[1],)).evaluate(tmp_path / "adapter", 1.0) == {"fid_none": 2.0}
    with pytest.raises(EvaluationError, match="`images` must be finite, but got NaN"):
        ActorEvaluator((scorers[2],)).evaluate(tmp_path / "adapter", 1.0)


class WithoutDevice:
    """A scorer whose first process has lost its device for good."""

    def __init__(self, folder: Path) -> None:
        self.is_first = not list(folder.iterdir())
        (folder / f"{os.getpid()}").touch()

    def score(self, *of: object) -> dict[str, float]:
        with ended_with_its_device():
            if self.is_first:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        return {"fid_none": 2.0}


def test_a_scorer_that_has_lost_its_device_is_started_anew(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorer = ray.remote(WithoutDevice).options(num_cpus=0, max_restarts=1, max_task_retries=1).remote(tmp_path)
    assert ActorEvaluator((scorer,)).evaluate(tmp_path / "adapter", 1.0) == {"fid_none": 2.0}
    assert len(list(tmp_path.iterdir())) == 2


class Slow:
    """A scorer that says which one it is, once a file is there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def score(self, adapter: Path, samples: Path, *more: object) -> dict[str, float]:
        while not adapter.exists():
            time.sleep(0.01)
        return {"number": float(self.number)}


def test_evaluations_go_to_the_actor_that_has_the_fewest(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorers = [ray.remote(Slow).options(num_cpus=0).remote(number) for number in range(3)]
    desk = ray.remote(Desk).options(num_cpus=0).remote(scorers)
    evaluator = ActorEvaluator(tuple(scorers), desk=desk)

    def begun(name: str) -> tuple[int, Any]:
        number, [scores] = ray.get(desk.score.remote(tmp_path / name, tmp_path / "samples.png"))
        return number, scores

    running = [begun(name) for name in "abcd"]
    assert [number for number, _ in running] == [0, 1, 2, 0]
    (tmp_path / "c").touch()
    assert ray.get(running[2][1]) == {"number": 2.0}
    (tmp_path / "e").touch()
    assert evaluator.evaluate(tmp_path / "e", 1.0) == {"number": 2.0}  # the third is idle; the first has two to do
    assert evaluator.base_scores(begun_base(evaluator, tmp_path), tmp_path) == {"number": 2.0}
    assert begun("f")[0] == 2 and begun("g")[0] == 1
    for scorer in (*scorers, desk):
        ray.kill(scorer)


def begun_base(evaluator: ActorEvaluator, folder: Path) -> Any:
    """As the engine has the base scored, whose adapter is none: here a file that is there."""
    (folder / "base").touch()
    return evaluator._begin(folder / "base", folder / "baseline.png", 1.0)


def test_a_full_disk_is_the_machines_fault_and_not_forgiven_at_a_rung(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    full = ray.remote(Moody).options(num_cpus=0).remote(2, OSError(28, "No space left on device", "/cache"))
    with pytest.raises(OSError, match="No space left on device: '/cache'"):
        ActorEvaluator((full,)).evaluate(tmp_path / "adapter", 0.5)


def test_the_base_models_failed_evaluation_is_tried_once_more(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorers = [ray.remote(Moody).options(num_cpus=0).remote(count) for count in (1, 2)]
    recovered, broken = (ActorEvaluator((scorer,)) for scorer in scorers)
    assert recovered.base_scores(recovered.score_base(tmp_path), tmp_path) == {"fid_none": 2.0}
    with pytest.raises(EvaluationError, match="`images` must be finite, but got NaN"):
        broken.base_scores(broken.score_base(tmp_path), tmp_path)
