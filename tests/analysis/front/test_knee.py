"""The knee: of elbows, in any unit, and worth its cost beside the un-adapted base."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_rows import ROWS

from analysis.front.knee import knee_index, worth_it
from analysis.front.pareto import Direction, pareto_mask


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(ROWS, st.floats(0.1, 100))
def test_knee_is_on_the_front_and_knows_no_units(rows: tuple[list[list[float]], list[Direction]], unit: float) -> None:
    values, directions = np.array(rows[0]), rows[1]
    if not np.isfinite(values).all(axis=1).any():
        with pytest.raises(ValueError, match="row of finite objectives, but got none"):
            knee_index(values, directions)
        return
    knee = knee_index(values, directions)
    assert pareto_mask(values, directions)[knee]
    flipped: list[Direction] = ["max" if d == "min" else "min" for d in directions]
    assert knee_index(-values, flipped) == knee
    assert knee_index(values * 2.0 ** np.round(np.log2(unit)), directions) == knee


def test_knee_of_an_elbow() -> None:
    values = [[0, 10], [1, 1], [10, 0], [5, 5]]
    assert knee_index(values, ["min", "min"]) == 1
    assert knee_index(values, ["min", "min"], [True, False, True, True]) == 0


def test_knee_ignores_dominated_rows_in_the_scaling() -> None:
    """Distances on the front: row 1 (1/4, 1/4); a dominated outlier must not stretch the scale."""
    values = [[0, 4], [1, 1], [4, 0], [5, 1e9]]
    assert knee_index(values, ["min", "min"]) == 1


def test_knee_of_the_largest_numbers() -> None:
    big = np.finfo(np.float64).max
    assert knee_index([[-big, big], [0, 0], [big, -big]], ["min", "min"]) in (0, 1, 2)


def test_what_is_worth_it_beats_the_base_surely_and_by_half_of_the_best_gain() -> None:
    gains, errors = [10.0, 5.0, 4.9, 20.0, -3.0], [1.0, 1.0, 1.0, 11.0, 0.1]
    assert worth_it(gains, errors).tolist() == [True, True, False, False, False]
    assert worth_it(gains, np.zeros(5)).tolist() == [True, False, False, True, False]
    assert worth_it([], []).tolist() == []
    assert worth_it([-1.0, 0.0], [0.0, 0.0]).tolist() == [False, False]
