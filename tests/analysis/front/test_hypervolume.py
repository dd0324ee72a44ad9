"""Hypervolumes: closed forms, Optuna's own, and what may not change them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume

from analysis.front.hypervolume import comparable, hypervolume, hypervolume_gain, nadir
from analysis.front.pareto import Direction, Objective, pareto_mask

DIRECTIONS: tuple[Direction, ...] = ("min", "max", "min", "max", "min")


def drawn(seed: int, num: int, dimension: int) -> NDArray[np.float64]:
    """Rows with ties, some of them twice, some beyond the reference point (1, ..., 1)."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 12, (num, dimension)) / 10 if seed % 2 else rng.random((num, dimension)) * 1.2
    return np.concatenate([rows, rows[: num // 4]])


def test_boxes_and_their_union_have_the_volumes_of_the_closed_form() -> None:
    assert hypervolume([[1.0, 2.0, 3.0]], ["min"] * 3, [2.0, 4.0, 6.0]) == pytest.approx(1 * 2 * 3)
    two = [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert hypervolume(two, ["min"] * 4, [2.0] * 4) == pytest.approx(8 + 8 - 4)
    assert hypervolume([[3.0], [1.0]], ["max"], [0.0]) == 3.0
    assert hypervolume(np.empty((0, 3)), ["min"] * 3, [1.0] * 3) == 0.0


@pytest.mark.parametrize("dimension", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_optunas_with_ties_duplicates_and_either_direction(dimension: int, seed: int) -> None:
    rows, directions = drawn(seed, 20, dimension), DIRECTIONS[:dimension]
    signs = np.array([1.0 if direction == "min" else -1.0 for direction in directions])
    expected = compute_hypervolume(rows[(rows < 1).all(axis=1)], np.ones(dimension))
    assert hypervolume(rows * signs, directions, signs) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_a_gain_is_the_difference_of_two_volumes(seed: int) -> None:
    rows, directions = drawn(seed, 12, 4), DIRECTIONS[:4]
    rows[:, [1, 3]] *= -1
    bound = [1.0, -1.0, 1.0, -1.0]
    first, others = rows[0], rows[1:]
    with_it, without = (hypervolume(points, directions, bound) for points in (rows, others))
    assert hypervolume_gain(first, others, directions, bound) == pytest.approx(with_it - without, abs=1e-12)
    assert hypervolume_gain(first, rows, directions, bound) == pytest.approx(0.0, abs=1e-12)


def test_neither_order_nor_dominated_nor_unfinished_rows_matter() -> None:
    rows = drawn(2, 20, 4)
    kept = rows[pareto_mask(rows, ["min"] * 4)]
    more = np.concatenate([np.random.default_rng(0).permutation(rows), [[np.nan, 0, 0, 0], [np.inf, 0, 0, 0]]])
    assert hypervolume(more, ["min"] * 4, [1.0] * 4) == pytest.approx(hypervolume(kept, ["min"] * 4, [1.0] * 4))


def test_the_nadir_lies_a_tenth_of_the_range_beyond_the_front_in_each_ones_direction() -> None:
    values = [[1.0, 10.0, 5.0], [2.0, 20.0, 5.0], [9.0, 9.0, 5.0]]
    assert nadir(values, ["min", "max", "min"]) == pytest.approx([2.1, 9.0, 5.1])


def test_costs_are_compared_by_their_logarithms_and_keep_their_order() -> None:
    objectives = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))
    values = comparable([[5.0, 100.0], [4.0, 1e6], [4.0, 0.0]], objectives)
    assert values[:2].tolist() == [[5.0, 2.0], [4.0, 6.0]] and np.isnan(values[2, 1])


@pytest.mark.parametrize("reference", [[1.0], [1.0, np.nan]])
def test_a_reference_point_that_is_none_is_refused(reference: list[float]) -> None:
    with pytest.raises(ValueError, match="`reference` must be a finite value for each of 2 objectives, but got"):
        hypervolume([[0.0, 0.0]], ["min", "min"], reference)
