"""Which trial a rule stops: worked examples, a second implementation, and what may not change a decision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from sweep.search.stopping_rules import (
    BONUS,
    LEAST_GAIN,
    STOPPING_RULES,
    Standing,
    crowding_distances,
    non_dominated_ranks,
    reference_point,
)


def standing(trial: ArrayLike, others: ArrayLike, *, errors: ArrayLike | None = None, num_costs: int = 1) -> Standing:
    values = np.asarray(trial, dtype=np.float64)
    return Standing(
        values=values,
        errors=np.zeros(len(values)) if errors is None else np.asarray(errors, dtype=np.float64),
        others=np.asarray(others, dtype=np.float64),
        is_cost=(*[False] * (len(values) - num_costs), *[True] * num_costs),
        eta=3,
    )


def drawn(seed: int, num: int = 9, dimension: int = 4) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((num, dimension))


OTHERS = [[1.0, 5.0], [2.0, 4.0], [3.0, 3.0], [4.0, 2.0], [9.0, 9.0]]
"""A staircase of a metric and a cost, and an outlier."""


def test_a_trial_that_all_beat_is_stopped_by_each_rule_and_one_that_beats_all_by_none() -> None:
    for name, rule in STOPPING_RULES.items():
        assert (rule(standing([8.0, 8.0], OTHERS)) is None) == (name == "none")
        assert rule(standing([0.0, 0.0], OTHERS)) is None


def test_what_adds_nothing_is_stopped_by_hypervolume_with_the_figures() -> None:
    reason = STOPPING_RULES["hypervolume"](standing([3.0, 3.0], OTHERS))
    assert reason == "would add 0.00% to the hypervolume of the 5 trials before it, and less than 0.2% does not go on"


def test_half_a_standard_error_lets_a_trial_go_on() -> None:
    beaten, hopeful = standing([3.2, 3.0], OTHERS), standing([3.2, 3.0], OTHERS, errors=[1.0, 0.0])
    rule = STOPPING_RULES["hypervolume"]
    assert rule(beaten) is not None and rule(hopeful) is None


def test_the_costliest_trial_goes_on_where_its_quality_is_the_best() -> None:
    """Quantiles as the reference point would give it nothing to gain."""
    best_and_costliest = standing([0.5, 20.0], OTHERS)
    assert STOPPING_RULES["hypervolume"](best_and_costliest) is None
    lower, upper = np.quantile([0.5, 1, 2, 3, 4, 9], [0.25, 0.75])
    assert reference_point(best_and_costliest.all(), best_and_costliest.is_cost) == pytest.approx(
        [upper + 1.5 * (upper - lower), 20 + 0.1 * 18]
    )


@pytest.mark.parametrize("seed", range(20))
def test_hypervolume_decides_as_two_volumes_of_optuna_do(seed: int) -> None:
    rows = drawn(seed)
    asked = standing(rows[0], rows[1:], errors=[0.1, 0.05, 0.0, 0.0], num_costs=2)
    bound = reference_point(asked.all(), asked.is_cost)

    def volume(values: NDArray[np.float64]) -> float:
        return float(compute_hypervolume(values[(values < bound).all(axis=1)], bound))

    without = volume(rows[1:])
    gain = volume(np.vstack([rows[1:], rows[0] - BONUS * asked.errors])) - without
    assert (STOPPING_RULES["hypervolume"](asked) is not None) == (gain < LEAST_GAIN * without)


@pytest.mark.parametrize("name", STOPPING_RULES)
@pytest.mark.parametrize("seed", range(5))
def test_units_and_the_order_of_the_others_do_not_matter(name: str, seed: int) -> None:
    rows, scale = drawn(seed), np.array([3.0, 0.5, 10.0, 7.0])
    first = standing(rows[0], rows[1:], num_costs=2)
    moved = standing(rows[0] * scale + 5, rows[:0:-1] * scale + 5, num_costs=2)
    assert (STOPPING_RULES[name](first) is None) == (STOPPING_RULES[name](moved) is None)


@pytest.mark.parametrize("seed", range(6))
def test_non_dominated_ranks_are_optunas(seed: int) -> None:
    rows = np.concatenate([drawn(seed, 25, 2 + seed % 4), drawn(seed, 6, 2 + seed % 4)]).round(1 if seed % 2 else 9)
    assert non_dominated_ranks(rows).tolist() == _fast_non_domination_rank(rows).tolist()


def test_crowding_distances_are_those_of_a_worked_example() -> None:
    assert crowding_distances(np.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0], [2.0, 0.5]])).tolist() == [
        np.inf,
        2 / 4 + 3.5 / 4,
        np.inf,
        3 / 4 + 1 / 4,
    ]


def test_halving_lets_a_third_go_on_by_rank_and_then_by_crowding() -> None:
    rule = STOPPING_RULES["halving"]
    layers = [[1.0, 4.0], [1.2, 3.8], [4.0, 1.0], [2.0, 5.0], [5.0, 5.0]]
    assert rule(standing([2.0, 2.0], layers)) == "ranks 3 of 6 by non-dominated rank, and 2 may go on"
    assert rule(standing([0.5, 6.0], layers)) is None  # an end of the front
    assert rule(standing([2.5, 5.0], layers)) == "ranks 5 of 6 by non-dominated rank, and 2 may go on"


def test_asha_sees_the_first_objective_alone() -> None:
    rule, others = STOPPING_RULES["asha"], [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]]
    assert rule(standing([1.5, 9.0], others)) is None
    assert rule(standing([2.5, -9.0], others)) == "ranks 3 of 6 by the first objective, and 2 may go on"
