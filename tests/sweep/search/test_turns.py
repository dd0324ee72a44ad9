"""Samplers that give each strategy a sequence, a grid or a population of its own."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from search_spaces import SEARCH_SPACES
from sweep.search.plan import SearchPlan
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.turns import grid_points, value_at

STRATEGIES = ("unet", "lora", "dora", "bitfit")
BOUNDS = (5e-4, 1e-2)


def plan_of(num_trials: int, strategies: tuple[str, ...] = STRATEGIES, seed: int = 0, **fixed: Any) -> SearchPlan:
    return SearchPlan.of(SEARCH_SPACES["mini"], strategies, fixed, num_trials=num_trials, seed=seed)


def search(name: str, plan: SearchPlan) -> list[dict[str, Any]]:
    """Configurations one after the other; the nearer lora's learning rate is to 2e-3, the better."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    choices = []
    for number in range(plan.num_trials):
        study.sampler = SEARCH_SAMPLERS[name](plan.at(number))
        trial = study.ask()
        choices.append(SEARCH_SPACES["mini"](trial, strategies=plan.strategies))
        study.tell(trial, [off(choices[-1]), 2 * off(choices[-1])])
    return choices


def off(choice: dict[str, Any]) -> float:
    return abs(math.log10(choice["lr"] / 2e-3))


@pytest.mark.parametrize("name", ["qmc", "nsga2", "nsga3"])
def test_the_strategies_take_turns(name: str) -> None:
    assert [choice["strategy"]["name"] for choice in search(name, plan_of(8))] == [*STRATEGIES, *STRATEGIES]


def test_of_eight_sobol_points_of_a_strategy_one_lies_in_each_eighth_and_seeds_differ() -> None:
    rates = [choice["lr"] for choice in search("qmc", plan_of(16, ("lora", "unet")))[::2]]
    eighths = [int(8 * math.log(lr / BOUNDS[0]) / math.log(BOUNDS[1] / BOUNDS[0])) for lr in rates]
    assert sorted(eighths) == list(range(8))
    assert rates != [choice["lr"] for choice in search("qmc", plan_of(16, ("lora", "unet"), seed=1))[::2]]


def test_the_grid_has_every_choice_with_every_other_once_and_each_strategy_first() -> None:
    plan = plan_of(6 + 90, ("unet", "lora"))
    choices = search("grid", plan)
    assert [choice["strategy"]["name"] for choice in choices[:2]] == ["unet", "lora"]
    assert Counter(choice["strategy"]["name"] for choice in choices) == {"unet": 3 * 2, "lora": 5 * 3 * 3 * 2}
    assert (
        len({str(sorted(choice["strategy"].items())) + f"{choice['lr']} {choice['batch_size']}" for choice in choices})
        == 96
    )
    assert len(grid_points(plan_of(1, ("lora",), lora={"rank": 4, "lr": 1e-3}))) == 3 * 2


def test_more_trials_than_grid_points_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        ValueError, match=r"must be at most 96 with the sampler 'grid'.*\(unet 6, lora 90\), but got 97"
    ):
        SEARCH_SAMPLERS["grid"](plan_of(97, ("unet", "lora")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_later_generations_are_better_than_the_first(name: str) -> None:
    """Medians of two seeds' first and last quarters; a search that learns nothing gains in one of two cases."""
    gains = [
        sorted(map(off, choices[:10]))[5] - sorted(map(off, choices[-10:]))[5]
        for choices in (search(name, plan_of(40, ("lora",), seed=seed)) for seed in range(2))
    ]
    assert sum(gains) > 0.2, gains


def test_gaussian_processes_draw_nearer_than_the_random_trials_before_them() -> None:
    choices = search("gp", plan_of(6, ("lora",)))
    assert 5 * min(map(off, choices[4:])) < min(map(off, choices[:4])), [off(choice) for choice in choices]


def test_a_stopped_or_failed_trial_is_no_parent_and_no_gap() -> None:
    plan, study = plan_of(20, ("lora",)), optuna.create_study(directions=["minimize", "minimize"])
    for number in range(20):
        study.sampler = SEARCH_SAMPLERS["nsga2"](plan.at(number))
        trial = study.ask()
        choice = SEARCH_SPACES["mini"](trial, strategies=("lora",))
        state = (None, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL)[number % 3]
        study.tell(trial, None if state else [off(choice)] * 2, state=state)
    assert len({trial.params["lora/lr"] for trial in study.trials}) > 10


def test_a_value_lies_at_its_share_of_a_distribution() -> None:
    assert value_at(0.5, FloatDistribution(1e-4, 1e-2, log=True)) == pytest.approx(1e-3)
    assert value_at(0.25, FloatDistribution(0, 8)) == 2.0
    assert [value_at(share, IntDistribution(1, 3)) for share in (0.0, 0.5, 0.99)] == [1, 2, 3]
    assert value_at(0.99, CategoricalDistribution(("a", "b"))) == "b"
    with pytest.raises(ValueError, match="`distribution` must be categorical, uniform or log-uniform"):
        value_at(0.5, IntDistribution(1, 8, log=True))


def test_a_strategys_space_is_what_it_is_asked_for_without_what_is_fixed() -> None:
    spaces = plan_of(1, ("lora", "bitfit"), lora={"rank": 4}).spaces
    assert {name: sorted(names) for name, names in spaces.items()} == {
        "lora": ["batch_size", "lora/alpha_ratio", "lora/lr"],
        "bitfit": ["batch_size", "bitfit/lr"],
    }
    trial: Trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    SEARCH_SPACES["mini"](trial, strategies=("lora",), fixed={"lora": {"rank": 4}})
    assert set(trial.params) - {"strategy"} == set(spaces["lora"])
