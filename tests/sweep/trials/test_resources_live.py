"""What the arithmetic finds room for, Ray places, and not one trial more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import ray
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from sweep.config import ComputeConfig
from sweep.trials.resources import BESIDE_WORKERS, place, trial_resources, worker_resources
from sweep.trials.waiting import nodes_of_cluster

PLACED_S = 0.25
"""Ray places within milliseconds what there is room for."""


def filling(cpus: float, trials: int, workers: int, actors: int, share: float) -> ComputeConfig:
    """So many trials fill all that evaluation leaves, which takes a share of the CPUs; one more is asked for."""
    evaluation = round(share * cpus / actors, 4)
    beside = trials * BESIDE_WORKERS["CPU"] if workers > 1 else 0.0
    left = cpus - actors * evaluation - beside
    return ComputeConfig(
        concurrent_trials=trials + 1,
        workers_per_trial=workers,
        cpus_per_worker=math.floor(left / (trials * workers) * 10_000) / 10_000,
        evaluation_actors=actors,
        evaluation_cpus=evaluation,
    )


def bundles_of_trial(compute: ComputeConfig, workers: int) -> list[list[dict[str, float]]]:
    """As Tune and Ray Train ask for them: the trial's own process, and beside it a group where there is one."""
    group = [[worker_resources(compute)] * workers] if workers > 1 else []
    return [[trial_resources(compute)], *group]


@pytest.fixture
def groups() -> Iterator[list[PlacementGroup]]:
    """Those that a test has Ray place."""
    asked: list[PlacementGroup] = []
    yield asked
    for group in asked:
        remove_placement_group(group)


@pytest.mark.parametrize(
    ("trials", "workers", "actors", "share"),
    [
        (1, 1, 1, 1 / 3),
        (2, 1, 1, 0.2),
        (3, 1, 2, 0.5),
        (8, 1, 3, 0.7),
        (1, 2, 1, 0.25),
        (2, 2, 2, 0.4),
        (3, 3, 1, 0.1),
        (1, 8, 3, 0.6),
    ],
)
def test_ray_places_as_many_trials_as_were_summed(
    ray_cluster: None, groups: list[PlacementGroup], trials: int, workers: int, actors: int, share: float
) -> None:
    compute = filling(ray.cluster_resources()["CPU"], trials, workers, actors, share)
    assert place(nodes_of_cluster(), compute).trials_at_once == trials
    groups += [placement_group([{"CPU": compute.evaluation_cpus}]) for _ in range(actors)]
    for _ in range(trials):
        groups += map(placement_group, bundles_of_trial(compute, workers))
    assert all(group.wait(300) for group in groups)
    more = [placement_group(bundles) for bundles in bundles_of_trial(compute, workers)]
    groups += more
    assert not all(group.wait(PLACED_S) for group in more)
