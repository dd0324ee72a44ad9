"""Evaluations that fail, in scorers whose faults are known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from sweep.scoring.actors import ActorEvaluator
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


def test_a_failed_evaluation_is_tried_once_more(ray_cluster: None, tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules
    scorers = {count: ray.remote(Moody).options(num_cpus=0).remote(count) for count in (1, 2)}
    assert ActorEvaluator((scorers[1],)).evaluate(tmp_path / "adapter", 1.0) == {"fid_none": 2.0}
    with pytest.raises(EvaluationError, match="`images` must be finite, but got NaN"):
        ActorEvaluator((scorers[2],)).evaluate(tmp_path / "adapter", 1.0)


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
