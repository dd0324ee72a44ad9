"""When a sweep ends early: each rule by itself, the growth of the front worked out, and nothing without rules."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pydantic import ValidationError

from analysis.front.pareto import Objective
from sweep.config import ComputeConfig, SearchConfig, SweepConfig
from sweep.search.ending import Ending
from sweep.search.settings import StopConfig
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def ending(rules: StopConfig, clock: Clock | None = None, strategies: tuple[str, ...] = ("lora",)) -> Ending:
    return Ending(
        rules, OBJECTIVES, strategies=strategies, concurrent_trials=2, gpus_per_worker=0.5, clock=clock or Clock()
    )


def finish(
    follower: Ending, values: Iterable[tuple[float, float]], strategy: str = "lora", start: int = 0
) -> list[str | None]:
    """Trials one after the other; the reason after each."""
    reasons = []
    for number, (fid, vendi) in enumerate(values, start):
        name = str(number)
        follower.on_start(Suggestion(trial_id=name, number=number, choice={"strategy": {"name": strategy}}))
        follower.on_report(name, {"epoch_s": 1000.0, "evaluation_s": 800.0, "fid_mini": fid, "vendi_mini": vendi})
        follower.on_end(name, TrialEnd.completed())
        reasons.append(follower.reason())
    return reasons


def test_hours_and_money_end_it_by_the_clock() -> None:
    for rules in (StopConfig(hours=2), StopConfig(money=6, price_per_hour=3)):
        clock = Clock()
        follower = ending(rules, clock)
        clock.now_s += 7199
        assert follower.reason() is None
        clock.now_s += 1
        assert (follower.reason() or "").endswith(
            ("hours=2 are over", "are spent at 3 an hour, of search.stop.money=6")
        )


def test_gpu_hours_are_those_of_training_and_evaluation_on_the_trials_share_of_a_gpu() -> None:
    reasons = finish(ending(StopConfig(gpu_hours=0.75)), [(1.0, 1.0)] * 3)
    assert reasons[:2] == [None, None]
    assert reasons[2] == "trials took 0.75 GPU-hours, of search.stop.gpu_hours=0.75"


def test_gpu_hours_of_an_elastic_trial_are_those_of_the_workers_that_it_had() -> None:
    """Two, then one; and of a report by an earlier version, which does not say, the most: half an hour each."""
    follower = Ending(
        StopConfig(gpu_hours=1.25), OBJECTIVES, strategies=(), concurrent_trials=1, gpus_per_worker=0.5, most_workers=2
    )
    for said in ({"num_workers": 2}, {"num_workers": 1}, {}):
        assert follower.reason() is None
        follower.on_report("a", {"epoch_s": 1000.0, "evaluation_s": 800.0, **said})
    assert follower.reason() == "trials took 1.25 GPU-hours, of search.stop.gpu_hours=1.25"


def test_a_front_that_no_longer_grows_ends_it_after_three_checks() -> None:
    """Two trials make the front, ten that follow add nothing: checks of trials 12, 13 and 14 find that."""
    values = [(1.0, 1.0), (2.0, 2.0)] + [(3.0, 0.5)] * 20
    reasons = finish(ending(StopConfig(growth=0.01)), values)
    assert next(number for number, reason in enumerate(reasons, 1) if reason) == 14
    assert "hypervolume grew by 0.0% over the last 10 completed trials" in (reasons[-1] or "")


def test_a_front_that_grows_or_a_strategy_that_has_not_ended_lets_it_go_on() -> None:
    growing = [(30.0 - number, 1.0 + number) for number in range(25)]
    assert set(finish(ending(StopConfig(growth=0.01)), growing)) == {None}
    values = [(1.0, 1.0), (2.0, 2.0)] + [(3.0, 0.5)] * 20
    follower = ending(StopConfig(growth=0.01), strategies=("lora", "unet"))
    assert set(finish(follower, values)) == {None}
    assert finish(follower, [(3.0, 0.5)] * 3, strategy="unet", start=50)[-1] is not None
    assert set(finish(ending(StopConfig()), values)) == {None}


def test_rules_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"must come with `search.stop.price_per_hour`, but got 5.0 and None"):
        StopConfig(money=5)
    with pytest.raises(ValidationError, match=r"must be of trials that have GPUs, but got compute.gpus_per_worker=0"):
        SweepConfig(search=SearchConfig(stop=StopConfig(gpu_hours=3)))
    SweepConfig(search=SearchConfig(stop=StopConfig(gpu_hours=3)), compute=ComputeConfig(gpus_per_worker=1))
