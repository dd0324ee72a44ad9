"""Pareto front and knee: worked examples, a second implementation, properties, the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.front.pareto import Direction, Front, Objective, front, knee_index, pareto_mask

ROWS = st.integers(1, 3).flatmap(
    lambda m: st.tuples(
        st.lists(
            st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, -1.0, np.nan, np.inf, -np.inf]), min_size=m, max_size=m),
            min_size=1,
            max_size=12,
        ),
        st.lists(st.sampled_from(["min", "max"]), min_size=m, max_size=m),
    )
)


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


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_agrees_with_every_pair(rows: tuple[list[list[float]], list[Direction]]) -> None:
    values, directions = np.array(rows[0]), rows[1]
    mask = pareto_mask(values, directions)
    assert mask.tolist() == _by_pairs(values, directions)
    assert mask.any() == np.isfinite(values).all(axis=1).any()
    order = np.random.default_rng(0).permutation(len(values))
    assert pareto_mask(values[order], directions).tolist() == mask[order].tolist()


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


def test_knee_ignores_dominated_rows_in_the_scaling() -> None:
    """Distances on the front: row 1 (1/4, 1/4); a dominated outlier must not stretch the scale."""
    values = [[0, 4], [1, 1], [4, 0], [5, 1e9]]
    assert knee_index(values, ["min", "min"]) == 1


def test_knee_of_the_largest_numbers() -> None:
    big = np.finfo(np.float64).max
    assert knee_index([[-big, big], [0, 0], [big, -big]], ["min", "min"]) in (0, 1, 2)


@pytest.mark.parametrize("values", [[[1.0, 2.0, 3.0]], [1.0, 2.0]])
def test_directions_must_match(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a direction for each column"):
        pareto_mask(values, ["min", "max"])


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="must be 'min' or 'max', but got 'up'"):
        Objective("fid_mini", "up")  # type: ignore[arg-type]


def _trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial_id": ["a", "b", "c", "d"],
            "status": ["completed", "completed", "failed", "completed"],
            "strategy": ["lora", "unet", "lora", "bitfit"],
            "param/lora/rank": [8.0, np.nan, 4.0, np.nan],
            "param/lr": [1e-4, 1e-5, 1e-4, 1e-3],
            "fid_mini": [2.0, 1.0, 0.1, 5.0],
            "trainable_parameters": [10, 100, 1, 20],
        }
    )


OBJECTIVES = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))


def test_front_of_a_table() -> None:
    found = front(_trials(), OBJECTIVES)
    assert [point.trial_id for point in found.points] == ["b", "a"]
    assert found.points[1].params == {"lora/rank": 8, "lr": 1e-4}
    assert found.points[0].params == {"lr": 1e-5}
    assert found.points[0].values == {"fid_mini": 1.0, "trainable_parameters": 100.0}
    assert found.knee is not None
    assert sum(point.knee for point in found.points) == 1


def test_front_file_round_trip(tmp_path: Path) -> None:
    found = front(_trials(), OBJECTIVES)
    found.write(tmp_path / "pareto.json")
    assert Front.read(tmp_path / "pareto.json") == found
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.json"]


def test_front_of_nothing(tmp_path: Path) -> None:
    failed = _trials().assign(status="failed")
    found = front(failed, OBJECTIVES)
    found.write(tmp_path / "pareto.json")
    assert (found.points, found.knee) == ((), None)
    assert Front.read(tmp_path / "pareto.json") == found


def test_front_refuses_what_is_no_front(tmp_path: Path) -> None:
    (tmp_path / "pareto.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold objectives and points"):
        Front.read(tmp_path / "pareto.json")


def test_front_needs_its_columns() -> None:
    with pytest.raises(ValueError, match=r"columns of the trials, but got \['fid_xrv'\]"):
        front(_trials(), [Objective("fid_xrv", "min")])
