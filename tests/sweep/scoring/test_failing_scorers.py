"""Evaluations that fail, in scorers whose faults are known."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from patience import until
from ray import cloudpickle
from ray._private.state import actors as actor_table
from ray.exceptions import ActorUnavailableError, OwnerDiedError
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console
from second_node import second_node

from sweep.config import ComputeConfig
from sweep.engine import _base_scores
from sweep.scoring import actors
from sweep.scoring.actors import ActorEvaluator, start_desk, start_evaluators
from sweep.scoring.desk import ALIVE, DEAD, state_of
from sweep.scoring.scorer import ended_with_its_device
from sweep.trials.ends import EvaluatorLostError
from sweep.trials.tuner import BREAKING, MACHINES_FAULT
from trainables.datasets.store import DataChangedError
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


class Patient(Moody):
    """One that says when it begins, and answers once a file is there."""

    def score(self, adapter: Path, samples: Path, *more: object) -> dict[str, float]:
        (samples.parent / "begun").touch()
        while not (samples.parent / "go").exists():
            time.sleep(0.05)
        return super().score(adapter, samples, *more)


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
    ray.kill(scorer)  # the error's trace holds on to it, and it would wait as long as the tests' Ray lives


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
    """A scorer that says which one it is once a file is there, and fails where that is a folder; it notes who helps."""

    def __init__(self, number: int) -> None:
        self.number = number

    def score(self, adapter: Path, samples: Path, share_done: float, *helpers: Any) -> dict[str, float]:
        names = [helper._actor_id.hex() for helper in helpers]
        samples.with_name(f"helpers of {adapter.name}").write_text(" ".join(names))
        while not adapter.exists():
            time.sleep(0.01)
        if adapter.is_dir():
            raise NOT_FINITE
        return {"number": float(self.number)}


@dataclass(frozen=True)
class Asked:
    """Three scorers, each in a process of its own, their desk, and the folder in which they look."""

    scorers: list[Any]
    desk: Any
    folder: Path

    def begun(self, name: str) -> tuple[int, Any]:
        """Which scorer has been asked for a file, and Ray's reference of what it says."""
        number, [scores] = ray.get(self.desk.score.remote(self.folder / name, self.folder / "samples.png"))
        return number, scores

    def helpers_of(self, name: str) -> list[int]:
        """Which scorers help with what has been scored."""
        names = [scorer._actor_id.hex() for scorer in self.scorers]
        return [names.index(helper) for helper in (self.folder / f"helpers of {name}").read_text().split()]


@pytest.fixture
def asked(ray_cluster: None, tmp_path: Path) -> Iterator[Asked]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorers = [ray.remote(Slow).options(num_cpus=0).remote(number) for number in range(3)]
    desk = start_desk(scorers)
    yield Asked(scorers, desk, tmp_path)
    for actor in (*scorers, desk):
        ray.kill(actor)


def test_evaluations_go_to_the_actor_that_has_the_fewest_and_those_that_have_none_help(
    asked: Asked, tmp_path: Path
) -> None:
    evaluator = ActorEvaluator(tuple(asked.scorers), desk=asked.desk)
    running = [asked.begun(name) for name in "abcd"]
    assert [number for number, _ in running] == [0, 1, 2, 0]
    (tmp_path / "c").touch()
    assert ray.get(running[2][1]) == {"number": 2.0}
    (tmp_path / "e").touch()
    assert evaluator.evaluate(tmp_path / "e", 1.0) == {"number": 2.0}  # the third is idle; the first has two to do
    assert evaluator.base_scores(begun_base(evaluator, tmp_path), tmp_path) == {"number": 2.0}
    running += [asked.begun(name) for name in "fg"]
    assert [number for number, _ in running[4:]] == [2, 1]
    for name in "abdfgh":
        (tmp_path / name).touch()
    ray.get([scores for _, scores in running])
    assert ray.get(asked.begun("h")[1]) == {"number": 0.0}
    helpers = {name: asked.helpers_of(name) for name in "abcdefgh"}
    assert {name: given for name, given in helpers.items() if given} == {"a": [1, 2], "h": [1, 2]}


def test_an_actor_that_is_dead_for_good_is_given_nothing(asked: Asked, tmp_path: Path) -> None:
    """It has nothing to do, and would have the fewest for ever."""
    ray.kill(asked.scorers[0])
    while state_of(asked.scorers[0]) != DEAD:
        time.sleep(0.01)
    given = [asked.begun(name) for name in "abcd"]
    assert [number for number, _ in given] == [1, 2, 1, 2]
    for name in "abcd":
        (tmp_path / name).touch()
    assert ray.get([scores for _, scores in given]) == [{"number": float(number)} for number, _ in given]
    assert asked.helpers_of("a") == [2]


def test_where_all_actors_are_dead_for_good_nothing_can_be_scored(asked: Asked, tmp_path: Path) -> None:
    for scorer in asked.scorers:
        ray.kill(scorer)
    evaluator = ActorEvaluator(tuple(asked.scorers), desk=asked.desk)
    with pytest.raises(EvaluatorLostError, match=r"`evaluation` must have a process .* and go on") as lost:
        evaluator.evaluate(tmp_path / "adapter", 0.5)
    assert isinstance(lost.value, BREAKING)
    with pytest.raises(
        EvaluatorLostError
    ):  # were it taken for scores that cannot be had, they would never be asked for again
        _base_scores(evaluator, None, tmp_path, Console())


def test_what_is_asked_again_goes_to_the_actor_that_had_it_unless_that_failed(asked: Asked, tmp_path: Path) -> None:
    """As by a trial that was lost while it waited: the actor answers at once what it has just answered."""
    given = [asked.begun(name) for name in "aabc"]
    assert [number for number, _ in given] == [0, 0, 1, 2]  # the first is at it
    (tmp_path / "a").touch()
    (tmp_path / "c").touch()
    ray.get([given[0][1], given[1][1], given[3][1]])
    number, scores = asked.begun("c")
    assert number == 2 and ray.get(scores) == {"number": 2.0}  # the first is as idle
    (tmp_path / "broken").mkdir()
    number, scores = asked.begun("broken")
    with pytest.raises(ValueError, match="finite"):
        ray.get(scores)
    assert (number, asked.begun("d")[0], asked.begun("broken")[0]) == (0, 0, 2)


def test_a_desk_is_where_the_sweep_is(ray_address: str) -> None:
    """On any other node, its loss would take the desk along; left to Ray, one of four is on the other node nearly always."""
    here = ray.get_runtime_context().get_node_id()
    with second_node(ray_address, num_cpus=1):
        desks = [start_desk([]) for _ in range(4)]
        ray.get([desk.__ray_ready__.remote() for desk in desks])
        assert {actor_table(desk._actor_id.hex())["Address"]["NodeID"] for desk in desks} == {here}
        for desk in desks:
            ray.kill(desk)


def test_a_scorer_whose_node_is_lost_has_room_before_the_trials_that_are_tried_again(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they hold all that there is, and wait for its scores. GPUs stand for what only the node that comes back has."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(actors, "AdapterScorer", Moody)
    groups = [placement_group([{"GPU": 1.0}])]
    with ExitStack() as at_the_end:
        at_the_end.callback(lambda: [remove_placement_group(group) for group in groups])
        with second_node(ray_address, num_cpus=2, num_gpus=2):
            evaluator = start_evaluators(0, ComputeConfig(evaluation_gpus=1))  # type: ignore[arg-type]  # its failures
            at_the_end.callback(evaluator.stop)
            until(lambda: state_of(evaluator.actors[0]) == ALIVE)
            assert groups[0].wait(300)
        remove_placement_group(groups.pop())
        groups += [placement_group([{"GPU": 1.0}]) for _ in range(2)]
        with second_node(ray_address, num_cpus=2, num_gpus=2):
            until(lambda: state_of(evaluator.actors[0]) == ALIVE)
            until(lambda: any(group.wait(0.1) for group in groups))
            assert sum(group.wait(1) for group in groups) == 1
            evaluator.stop()
            assert all(group.wait(300) for group in groups)


def test_a_desk_that_is_lost_is_no_failure_of_the_evaluation(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor knows nothing of what was begun; the second evaluation fails, and the third one is not too many."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(actors, "LOOK_S", 0.1)
    scorer = ray.remote(Patient).options(num_cpus=0).remote(2)
    desk = start_desk([scorer])
    evaluator = ActorEvaluator((scorer,), desk=desk)
    running = evaluator.score_base(tmp_path)
    while not (tmp_path / "begun").exists():  # else Ray forgets it with its owner
        time.sleep(0.05)
    ray.kill(desk, no_restart=False)
    with pytest.raises(OwnerDiedError):
        ray.get(running[1])
    (tmp_path / "go").touch()
    assert evaluator.base_scores(running, tmp_path) == {"fid_none": 2.0}
    evaluator.stop()


def test_films_that_have_changed_are_no_failure_of_an_evaluation(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scorer = ray.remote(Moody).options(num_cpus=0).remote(1, DataChangedError("`data set` must be the one"))
    with pytest.raises(DataChangedError, match=r"^`data set` must be the one$") as changed:
        ActorEvaluator((scorer,)).evaluate(tmp_path / "adapter", 0.5)
    assert isinstance(changed.value, BREAKING)


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
