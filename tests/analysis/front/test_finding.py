"""The front of a table of trials, beside the un-adapted base, with its knee, its certainty and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.front.objectives import BASE
from analysis.front.pareto import Front, Objective


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
    front = find_front(_trials(), OBJECTIVES)
    assert [point.trial_id for point in front.points] == ["b", "a"]
    assert front.points[1].params == {"lora/rank": 8, "lr": 1e-4}
    assert front.points[0].params == {"lr": 1e-5}
    assert front.points[0].values == {"fid_mini": 1.0, "trainable_parameters": 100.0}
    assert front.knee is not None
    assert sum(point.knee for point in front.points) == 1


def test_front_file_round_trip(tmp_path: Path) -> None:
    front = find_front(_trials(), OBJECTIVES)
    front.write(tmp_path / "pareto.json")
    assert Front.read(tmp_path / "pareto.json") == front
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.json"]


def test_front_of_nothing(tmp_path: Path) -> None:
    failed = _trials().assign(status="failed")
    front = find_front(failed, OBJECTIVES)
    front.write(tmp_path / "pareto.json")
    assert (front.points, front.knee) == ((), None)
    assert Front.read(tmp_path / "pareto.json") == front


def test_front_refuses_what_is_no_front(tmp_path: Path) -> None:
    (tmp_path / "pareto.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold objectives and points"):
        Front.read(tmp_path / "pareto.json")


def test_front_needs_its_columns() -> None:
    with pytest.raises(ValueError, match=r"columns of the trials, but got \['fid_xrv'\]"):
        find_front(_trials(), [Objective("fid_xrv", "min")])


BASELINE = {"fid_mini": 4.0}


def _resamples(**errors: float) -> dict[str, pd.DataFrame]:
    """Of each trial a FID that goes up and down, each by its own resamples."""
    rng = np.random.default_rng(5)
    return {name: pd.DataFrame({"fid_mini": rng.normal(0, error, 400)}) for name, error in errors.items()}


def test_what_is_worse_than_not_adapting_is_not_on_the_front() -> None:
    """The base has 4.0 at no cost; without it trial e, of few parameters, would be on the front and even its knee."""
    rows = pd.concat([_trials(), _trials().head(1).assign(trial_id="e", fid_mini=5.5, trainable_parameters=1)])
    assert [point.trial_id for point in find_front(rows, OBJECTIVES).points] == ["b", "a", "e"]
    front = find_front(rows, OBJECTIVES, Evidence(baseline=BASELINE))
    assert [point.trial_id for point in front.points] == ["b", "a"]
    assert front.base == {"fid_mini": 4.0, "trainable_parameters": 0.0}
    assert front.knee is not None and front.knee.trial_id == "a"


def test_a_sweep_that_only_measures_costs_has_no_base_to_beat() -> None:
    objectives = (Objective("trainable_parameters", "min"),)
    assert [point.trial_id for point in find_front(_trials(), objectives, Evidence(baseline=BASELINE)).points] == ["a"]


def test_the_knee_beats_the_base_by_more_than_its_error() -> None:
    """Trial a is 2.0 better than the base: more than its error of 0.5, less than one of 2."""
    for error, knee in ((0.5, "a"), (2.0, "b")):
        resamples = _resamples(a=error, b=0.1, d=0.1, **{BASE: 0.1})
        front = find_front(_trials(), OBJECTIVES, Evidence(baseline=BASELINE, resamples=resamples))
        assert front.knee is not None and front.knee.trial_id == knee
        assert "beat the un-adapted base in fid_mini by more than their error" in front.knee_rule
        errors = {point.trial_id: point.errors for point in front.points}
        assert np.isclose(errors["a"]["fid_mini"], error, rtol=0.15) and list(errors["a"]) == ["fid_mini"]


def test_nothing_is_proposed_where_nothing_beats_the_base_by_more_than_its_error() -> None:
    resamples = _resamples(a=3.0, b=3.0, d=3.0, **{BASE: 0.1})
    front = find_front(_trials(), OBJECTIVES, Evidence(baseline=BASELINE, resamples=resamples))
    assert front.knee is None and len(front.points) == 2
    assert front.knee_rule == "no trial of the front beats the un-adapted base in fid_mini by more than its error"


def test_a_point_that_noise_may_keep_from_the_front_is_near_it(tmp_path: Path) -> None:
    """Trial e is beaten by a in both objectives, in one of them by less than the errors."""
    rows = pd.concat([_trials(), _trials().head(1).assign(trial_id="e", fid_mini=2.1, trainable_parameters=11)])
    for error, near in ((0.2, ["e"]), (0.01, [])):
        resamples = _resamples(a=error, b=error, d=error, e=error, **{BASE: error})
        front = find_front(rows, OBJECTIVES, Evidence(baseline=BASELINE, resamples=resamples))
        assert [point.trial_id for point in front.points] == ["b", "a"]
        assert [point.trial_id for point in front.near] == near
        assert set(front.probabilities) == {"a", "b", "d", "e"}
        front.write(tmp_path / "pareto.json")
        assert Front.read(tmp_path / "pareto.json") == front


def test_the_probability_is_not_known_where_a_trial_was_not_resampled() -> None:
    resamples = _resamples(a=1.0, b=1.0, **{BASE: 1.0})
    front = find_front(_trials(), OBJECTIVES, Evidence(baseline=BASELINE, resamples=resamples))
    assert front.probabilities == {} and front.near == () and front.points[0].probability is None
