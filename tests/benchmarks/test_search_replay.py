"""Searches on a simulated clock: what they cost, and that the engine's own decisions are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from benchmarks.replay import simulator
from benchmarks.replay.problems import OBJECTIVES, Pool, Problem, recorded, synthetic
from benchmarks.replay.simulator import Finished, Search, Simulator, hours_to
from benchmarks.search_replay import RECORDING, SHARES, median_interval, replay, ways


@pytest.fixture(scope="module")
def problem() -> Problem:
    return synthetic(0, 32)


def searched(
    problem: Problem, scheduler: str, *, num_workers: int = 1, seed: int = 0, enough: float = 0.99
) -> Simulator:
    search = Search(sampler="random", scheduler=scheduler, num_workers=num_workers, seed=seed, enough=enough)
    run = Simulator(problem, search)
    run.run()
    return run


@pytest.mark.slow
def test_without_stops_one_worker_does_all_the_work_of_the_pool_and_finds_all(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "SUGGESTIONS", 9)
    run = searched(replace(problem, formula=None), "none", enough=math.inf)
    ends = [training.stages[-1] for training in problem.pool]
    assert run.finished[-1].work_s == pytest.approx(sum(end.training_s + end.evaluation_s for end in ends))
    assert run.finished[-1].share == pytest.approx(1.0) and run.num_stopped == 0
    shares = [finished.share for finished in run.finished]
    assert len(shares) == 32 and np.diff(shares).min() > -1e-9
    unanswered = [trial for trial in run.searcher().study.trials if trial.values is None]
    assert unanswered and not any(trial.constraints for trial in unanswered), "no configuration is at fault for that"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["front", "tpe"])
def test_a_sampler_that_is_led_by_results_goes_on_where_a_strategy_is_used_up(sampler: str) -> None:
    pool = replace(synthetic(0, 16), formula=None)
    run = Simulator(pool, Search(sampler=sampler, scheduler="none", num_workers=2, seed=0, enough=math.inf))
    run.run()
    assert run.num_trials == len(pool.pool) and run.share == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["gain", "hypervolume", "halving", "asha"])
def test_trials_are_stopped_and_what_is_stopped_is_not_found(problem: Problem, scheduler: str) -> None:
    run = searched(problem, scheduler, num_workers=4)
    assert 0 < run.num_stopped == run.num_trials - len(run.finished)
    assert {end.state.name for end in run.searcher().study.trials} >= {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_the_seed_decides(problem: Problem) -> None:
    first, again, other = (searched(problem, "hypervolume", seed=seed).finished for seed in (0, 0, 1))
    assert first == again != other


def test_a_pool_answers_with_the_nearest_that_is_left(problem: Problem) -> None:
    pool = Pool(problem)
    loras = [training for training in problem.pool if training.strategy == "lora"]
    for wanted in loras:
        assert pool.take("lora", wanted.params) is wanted
    assert pool.take("lora", loras[0].params) is None and not pool.has("lora") and pool.has("unet")
    pool = Pool(problem)
    assert pool.take("lora", loras[0].params) is loras[0]
    second = pool.take("lora", loras[0].params)
    assert second is not loras[0] and second in loras


def test_curves_of_a_rung_are_alike_and_the_front_has_several_strategies(problem: Problem) -> None:
    for training in problem.pool:
        assert [stage.report["epoch"] for stage in training.stages] == [0, 2, 8]
        costs = [stage.training_s for stage in training.stages]
        assert costs == sorted(costs) and np.isfinite(training.values).all()
    values = np.array([each.values for each in problem.pool])
    assert problem.volume(values.tolist()) == pytest.approx(1.0)
    closest, cheapest = (min(problem.pool, key=lambda each: each.values[column]).strategy for column in (0, 2))
    assert closest != cheapest and [objective.name for objective in OBJECTIVES][::2] == [
        "fid_mini",
        "trainable_parameters",
    ]


@pytest.mark.parametrize("made", [partial(synthetic, 0, 32), partial(recorded, RECORDING)])
def test_standard_errors_are_told_at_rungs_alone_as_in_a_sweep(made: Callable[[], Problem]) -> None:
    for training in made().pool:
        *rungs, end = [{name for name in stage.report if name.endswith("_se")} for stage in training.stages]
        assert not end and all(names == {"early_fid_mini_se", "early_vendi_mini_se"} for names in rungs)


def test_hours_are_those_of_the_first_that_reaches_the_share() -> None:
    finished = [Finished(work_s=3600.0, share=0.5), Finished(work_s=7200.0, share=0.93)]
    assert [hours_to(finished, share) for share in (0.5, 0.9, 0.95)] == [1.0, 2.0, None]


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    """Of 20 values the sixth to the fifteenth hold the median in 95.9 % (Conover 1999, section 3.2)."""
    assert median_interval([float(value) for value in range(1, 21)]) == (10.0, 6.0, 15.0)
    assert median_interval([1.0, 2.0, math.inf]) == (2.0, 1.0, None)
    assert median_interval([1.0, math.inf, math.inf]) == (None, 1.0, None)


def test_a_row_has_what_a_reader_needs_for_each_share(problem: Problem) -> None:
    rows = list(replay(problem, ("random", "none"), num_workers=2, seeds=range(2)))
    assert [row.share for row in rows] == SHARES
    assert {(row.problem, row.sampler, row.scheduler, row.workers) for row in rows} == {
        ("synthetic-0", "random", "none", 2)
    }
    fewer = list(replay(problem, ("random", "none"), num_workers=2, seeds=range(2), shares=SHARES[:1]))
    assert [(row.share, row.gpu_hours, row.low) for row in fewer] == [(0.9, rows[0].gpu_hours, rows[0].low)]
    hours = [row.gpu_hours for row in rows if row.gpu_hours is not None]
    assert hours == sorted(hours) and not rows[0].is_default and rows[0].num_seeds == 2
    assert {("tpe", "gain"), ("front", "hypervolume"), ("tpe", "none"), ("random", "none")} <= set(ways())
