"""Whether a sweep goes onto nodes: every sum against a search that tries all arrangements."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.config import ComputeConfig, ConfigError
from sweep.trials.resources import (
    Node,
    fewest_workers,
    local_cpus,
    most_workers,
    place,
    placed_evaluation,
    trial_resources,
    worker_resources,
    workers_of_trial,
)

Machine = tuple[int, tuple[int, ...]]
"""Hundredths of CPUs, and of each GPU, that are free."""


def asked(compute: ComputeConfig, num_trials: int) -> list[tuple[int, int]]:
    """Everything to be laid, as hundredths of CPU and GPU; equal things stand together."""
    actors = [(round(100 * compute.evaluation_cpus), round(100 * compute.evaluation_gpus))] * compute.evaluation_actors
    worker = (round(100 * compute.cpus_per_worker), round(100 * compute.gpus_per_worker))
    workers = [worker] * (num_trials * fewest_workers(compute))
    return [*actors, *workers, *[(1, 0)] * (num_trials if most_workers(compute) > 1 else 0)]


def without(machine: Machine, thing: tuple[int, int]) -> list[Machine]:
    """The machine with the thing on it, for every choice of GPUs; empty where it does not go on."""
    cpus, gpus = machine[0] - thing[0], machine[1]
    if cpus < 0:
        return []
    if thing[1] == 0:
        return [(cpus, gpus)]
    if thing[1] >= 100:
        free, wanted = [place for place, left in enumerate(gpus) if left == 100], -(-thing[1] // 100)
        chosen = free[:wanted]
        return [(cpus, tuple(0 if i in chosen else g for i, g in enumerate(gpus)))] if len(chosen) == wanted else []
    return [
        (cpus, tuple(sorted([*gpus[:i], left - thing[1], *gpus[i + 1 :]])))
        for i, left in enumerate(gpus)
        if left >= thing[1]
    ]


@cache
def go_on(machines: tuple[Machine, ...], things: tuple[tuple[int, int], ...]) -> bool:
    """Whether things go onto machines, by trying every one for each."""
    if not things:
        return True
    return any(
        go_on(tuple(sorted([*machines[:i], left, *machines[i + 1 :]])), things[1:])
        for i, machine in enumerate(machines)
        for left in without(machine, things[0])
    )


def by_trying(nodes: list[Node], compute: ComputeConfig, num_trials: int) -> bool:
    machines = tuple(sorted((round(100 * node.cpus), (100,) * int(node.gpus)) for node in nodes))
    return go_on(machines, tuple(asked(compute, num_trials)))


def test_all_sums_on_one_node_of_1_to_8_cpus() -> None:
    """On one node without GPUs the arithmetic is plain addition."""
    for cpus, trials, workers, actors in itertools.product(range(1, 9), range(1, 5), range(1, 5), range(1, 4)):
        compute = ComputeConfig(concurrent_trials=trials, workers_per_trial=workers, evaluation_actors=actors)
        trial = workers * 100 + (1 if workers > 1 else 0)
        room = min(trials, (cpus * 100 - actors * 100) // trial)
        if room < 1:
            with pytest.raises(ConfigError, match="`compute` must find room for a trial"):
                place([Node("a", cpus)], compute)
        else:
            laid = place([Node("a", cpus)], compute)
            assert (laid.trials_at_once, laid.evaluation_nodes) == (room, ("a",) * actors)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Node], ComputeConfig]:
    nodes = [
        Node(name, draw(st.sampled_from([1, 2, 3, 4])), draw(st.sampled_from([0, 0, 1, 2])))
        for name in "abc"[: draw(st.integers(1, 3))]
    ]
    compute = ComputeConfig(
        concurrent_trials=draw(st.integers(1, 2)),
        workers_per_trial=draw(st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 2), st.integers(1, 3)))),
        cpus_per_worker=draw(st.sampled_from([0.01, 0.5, 1, 2])),
        gpus_per_worker=draw(st.sampled_from([0, 0, 0.3, 0.5, 1, 2])),
        evaluation_actors=draw(st.integers(1, 3)),
        evaluation_cpus=draw(st.sampled_from([0.5, 1, 2])),
        evaluation_gpus=draw(st.sampled_from([0, 0, 0.2, 0.5, 1])),
    )
    return nodes, compute


@given(cases())
def test_what_goes_on_goes_on_and_nothing_else(case: tuple[list[Node], ComputeConfig]) -> None:
    nodes, compute = case
    for num_trials in range(compute.concurrent_trials + 1):
        where = placed_evaluation(nodes, compute, num_trials)
        assert (where is not None) == by_trying(nodes, compute, num_trials)
        if where is not None:  # with the actors where it says, the trials still go on
            actors = Counter(where)
            left = [
                Node(machine.node_id, machine.cpus - actors[machine.node_id] * compute.evaluation_cpus)
                for machine in nodes
            ]
            assert len(where) == compute.evaluation_actors and all(node.cpus >= 0 for node in left)
            trials_alone = compute.model_copy(update={"evaluation_actors": 0, "gpus_per_worker": 0.0})
            assert by_trying(left, trials_alone, num_trials)


@given(cases())
def test_a_trial_has_as_many_workers_as_all_at_once_find_room_for(case: tuple[list[Node], ComputeConfig]) -> None:
    nodes, compute = case
    fits = [
        number
        for number in range(fewest_workers(compute), most_workers(compute) + 1)
        if by_trying(nodes, compute.model_copy(update={"workers_per_trial": (number, 3)}), compute.concurrent_trials)
    ]
    if most_workers(compute) == 1 or not fits:
        assert workers_of_trial(nodes, compute) == fewest_workers(compute)
    else:
        assert workers_of_trial(nodes, compute) == max(fits)


def test_a_trial_has_fewer_workers_where_a_node_is_gone() -> None:
    compute, nodes = ComputeConfig(workers_per_trial=(1, 2)), [Node("head", 2), Node("other", 1), Node("third", 1)]
    assert [workers_of_trial(nodes[:count], compute) for count in (3, 2, 1, 0)] == [2, 1, 1, 1]
    assert place(nodes[:2], compute).trials_at_once == 1
    with pytest.raises(ConfigError, match=r"1 x 1 CPU and 0\.01 CPU for a trial = 2\.01 CPU"):
        place(nodes[:1], compute)


def test_evaluation_leaves_as_many_workers_their_room_as_a_trial_then_has() -> None:
    compute, nodes = ComputeConfig(workers_per_trial=(1, 2), cpus_per_worker=2), [Node("small", 1.02), Node("big", 4)]
    assert workers_of_trial(nodes, compute) == 2
    assert place(nodes, compute).evaluation_nodes == ("small",)


def test_workers_go_beside_what_runs_already() -> None:
    compute, nodes = ComputeConfig(workers_per_trial=(1, 3), cpus_per_worker=8), [Node("small", 8), Node("big", 16)]
    numbers = {
        (where, here): workers_of_trial(nodes, compute, evaluation_nodes=(where,), here=here)
        for where in ("small", "big")
        for here in ("small", "big")
    }
    assert numbers == {("small", "small"): 2, ("small", "big"): 1, ("big", "small"): 1, ("big", "big"): 2}
    assert workers_of_trial(nodes, compute, evaluation_nodes=("gone", None), here="small") == 2


def test_evaluation_leaves_a_worker_the_node_that_it_needs() -> None:
    compute = ComputeConfig(evaluation_actors=2, cpus_per_worker=3)
    assert place([Node("big", 3), Node("small", 2)], compute).evaluation_nodes == ("small", "small")
    with pytest.raises(ConfigError, match=r"there are 1 node of 3 CPU and 0 GPU, 1 node of 1 CPU and 0 GPU"):
        place([Node("big", 3), Node("small", 1)], compute)


def test_the_sum_is_shown_and_what_to_do() -> None:
    compute = ComputeConfig(workers_per_trial=2, evaluation_gpus=0.25)
    said = (
        r"but got 1 x 1 CPU and 0\.25 GPU for evaluation \+ 2 x 1 CPU and 0\.01 CPU for a trial = 3\.01 CPU and 0\.25 GPU, "
        r"where there is 1 node of 3 CPU and 1 GPU, .* compute\.may_grow=true .* 0\.5 each to share one GPU"
    )
    with pytest.raises(ConfigError, match=said):
        place([Node("a", 3, 1)], compute)


def test_what_a_growing_cluster_lacks_is_waited_for() -> None:
    compute = ComputeConfig(concurrent_trials=3, evaluation_actors=2, may_grow=True)
    assert place([Node("head", 0)], compute).evaluation_nodes == (None, None)
    assert place([Node("head", 2)], compute).evaluation_nodes == ("head", "head")
    assert place([], compute).trials_at_once == 3


@pytest.mark.slow
def test_many_nodes_are_laid_in_no_time() -> None:
    compute = ComputeConfig(concurrent_trials=64, workers_per_trial=4, evaluation_actors=8, gpus_per_worker=1)
    laid = place([Node(f"n{number}", 16, 4) for number in range(30)], compute)
    assert laid.trials_at_once == 30


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 8))
def test_a_ray_of_ones_own_always_holds_all_trials(trials: int, workers: int, actors: int, here: int) -> None:
    compute = ComputeConfig(concurrent_trials=trials, workers_per_trial=workers, evaluation_actors=actors)
    cpus = local_cpus(compute, here)
    assert place([Node("here", cpus)], compute).trials_at_once == trials
    assert cpus == here or placed_evaluation([Node("here", cpus - 1)], compute, trials) is None


def test_a_trial_asks_tune_for_what_was_summed() -> None:
    assert trial_resources(ComputeConfig(gpus_per_worker=0.5)) == {"CPU": 1.0, "GPU": 0.5}
    assert trial_resources(ComputeConfig(workers_per_trial=2, gpus_per_worker=0.5)) == {"CPU": 0.01}
    assert worker_resources(ComputeConfig(cpus_per_worker=2)) == {"CPU": 2}
