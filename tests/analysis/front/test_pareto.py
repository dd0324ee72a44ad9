"""What dominates what: worked examples, second implementations, properties."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from random_rows import ROWS

from analysis.front.pareto import Direction, Objective, dominated, pareto_mask


def _dominates(a: NDArray[np.float64], b: NDArray[np.float64], directions: list[Direction]) -> bool:
    better = [x < y if d == "min" else x > y for x, y, d in zip(a, b, directions, strict=True)]
    worse = [x > y if d == "min" else x < y for x, y, d in zip(a, b, directions, strict=True)]
    return any(better) and not any(worse)


def _by_pairs(values: NDArray[np.float64], directions: list[Direction]) -> list[bool]:
    """Every pair, from the definition."""
    finite = [bool(np.isfinite(row).all()) for row in values]
    return [
        finite[i] and not any(finite[j] and _dominates(values[j], values[i], directions) for j in range(len(values)))
        for i in range(len(values))
    ]


def test_worked_example() -> None:
    values = [[1, 5], [2, 4], [3, 3], [2, 5], [np.nan, 0], [4, -np.inf], [1, 5]]
    assert pareto_mask(values, ["min", "min"]).tolist() == [True, True, True, False, False, False, True]
    assert pareto_mask(values, ["min", "max"]).tolist() == [True, False, False, False, False, False, True]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_agrees_with_every_pair(rows: tuple[list[list[float]], list[Direction]]) -> None:
    values, directions = np.array(rows[0]), rows[1]
    mask = pareto_mask(values, directions)
    assert mask.tolist() == _by_pairs(values, directions)
    assert mask.any() == np.isfinite(values).all(axis=1).any()
    order = np.random.default_rng(0).permutation(len(values))
    assert pareto_mask(values[order], directions).tolist() == mask[order].tolist()


@pytest.mark.parametrize("num_objectives", [2, 3, 4, 5])
def test_agrees_with_optuna(num_objectives: int) -> None:
    """Ties, duplicates and mixed directions; Optuna's `best_trials` is the second implementation."""
    rng = np.random.default_rng(num_objectives)
    for num_values in (3, 6, 1000):
        values = rng.integers(0, num_values, (40, num_objectives)).astype(float)
        values[30:] = values[:10]
        directions: list[Direction] = ["min" if is_min else "max" for is_min in rng.integers(0, 2, num_objectives)]
        study = optuna.create_study(directions=[f"{direction}imize" for direction in directions])
        study.add_trials([optuna.trial.create_trial(values=row) for row in values.tolist()])
        assert np.flatnonzero(pareto_mask(values, directions)).tolist() == [trial.number for trial in study.best_trials]


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4, 5])
def test_of_a_thousand_rows_agrees_with_comparing_all_pairs(num_objectives: int) -> None:
    """More rows than are compared at once, with ties, duplicates, gaps and both zeros; the front from one row to all."""
    rng = np.random.default_rng(num_objectives)
    ties = rng.choice(
        [-2, -0.0, 0.0, 1, 2, 3, 5, 8, np.nan, -np.inf], (1000, num_objectives), p=[*[0.12] * 8, 0.02, 0.02]
    )
    spread = np.abs(rng.normal(size=(1000, num_objectives)))  # on a sphere none dominates another
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    spread[900:] = spread[:100]
    for values in (ties, spread, np.zeros((300, num_objectives)), np.full((300, num_objectives), np.nan)):
        mask = pareto_mask(values, ["min"] * num_objectives)
        rows = values[np.isfinite(values).all(axis=1)]
        beaten = (rows[:, None] <= rows).all(axis=2) & (rows[:, None] < rows).any(axis=2)
        np.testing.assert_array_equal(mask[np.isfinite(values).all(axis=1)], ~beaten.any(axis=0))
        assert not mask[~np.isfinite(values).all(axis=1)].any()


def test_the_published_table() -> None:
    """Pixels under Pressure: its FID and Vendi score, with the trainable parameters of its strategies on SD 1.5."""
    table = {
        "U-Net": (3.42, 5.65, 859_520_964),
        "U-Net + text": (6.57, 2.79, 982_581_444),
        "U-Net + VAE": (7.46, 2.59, 943_174_827),
        "LoRA": (5.65, 2.64, 1_594_368),
        "DoRA": (5.72, 3.18, 1_694_208),
        "BitFit": (5.05, 5.89, 343_684),
    }
    mask = pareto_mask(list(table.values()), ["min", "max", "min"])
    assert [name for name, on_front in zip(table, mask, strict=True) if on_front] == ["U-Net", "BitFit"]


@pytest.mark.slow
@given(ROWS)
def test_a_point_dominates_what_leaves_the_front_beside_it(rows: tuple[list[list[float]], list[Direction]]) -> None:
    finite = np.isfinite(rows[0]).all(axis=1)
    values = np.array(rows[0])[finite]
    if len(values) < 2:
        return
    rest, point = values[1:], values[0]
    alone = pareto_mask(rest, rows[1])
    beside = pareto_mask(values, rows[1])[1:]
    assert (alone & ~dominated(rest, point, rows[1])).tolist() == beside.tolist()


def test_no_cost_is_beaten_by_an_infinite_rate() -> None:
    assert dominated([[1.0, 5.0], [3.0, 5.0]], [2.0, np.inf], ["min", "max"]).tolist() == [False, True]


@pytest.mark.parametrize("values", [[[1.0, 2.0, 3.0]], [1.0, 2.0]])
def test_directions_must_match(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a direction for each column"):
        pareto_mask(values, ["min", "max"])


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="must be 'min' or 'max', but got 'up'"):
        Objective("fid_mini", "up")  # type: ignore[arg-type]
