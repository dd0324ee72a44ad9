"""Hypervolume over a sweep: worked by hand, and what may not change it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.front.history import MOST_POINTS, hypervolume_history
from analysis.front.hypervolume import hypervolume, nadir
from analysis.front.pareto import Objective

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
TRIALS = pd.DataFrame(
    {
        "trial_id": ["a", "b", "c", "d"],
        "status": ["completed", "completed", "stopped", "completed"],
        "fid_mini": [2.0, 1.0, 0.5, 3.0],
        "vendi_mini": [2.0, 1.0, 9.0, 0.5],
    }
)
RESULTS = pd.DataFrame(
    {
        "trial_id": ["b", "a", "c", "b", "d", "a"],
        "epoch_s": [1800.0] * 6,
        "evaluation_s": [np.nan, np.nan, 1800.0, 1800.0, np.nan, 1800.0],
    }
)


def test_worked_by_hand() -> None:
    """Front {a, b}: spans 1 and 1, reference (2.1, 0.9). b: 1.1 x 0.1; b and a: 0.11 + 0.1 x 1.1 - 0.01; d is outside."""
    history = hypervolume_history(TRIALS, RESULTS, OBJECTIVES)
    assert history.trial_ids == ("b", "d", "a")
    assert np.allclose(history.hours, [3.0, 3.5, 4.5])
    assert np.allclose(history.volumes, [0.11 / 0.21, 0.11 / 0.21, 1.0])


def test_it_never_falls_and_ends_with_one() -> None:
    rng = np.random.default_rng(0)
    trials = pd.DataFrame(rng.random((30, 2)), columns=["fid_mini", "vendi_mini"]).assign(
        trial_id=[str(i) for i in range(30)]
    )
    results = pd.DataFrame({"trial_id": trials["trial_id"].sample(frac=1, random_state=0), "epoch_s": 1.0})
    history = hypervolume_history(trials, results, OBJECTIVES)
    assert history.trial_ids == tuple(results["trial_id"]) and history.volumes[-1] == 1.0
    assert (np.diff(history.volumes) >= -1e-12).all() and (np.diff(history.hours) > 0).all()


def test_a_sweep_without_results_has_no_history() -> None:
    for trials, results in ((TRIALS, pd.DataFrame({"trial_id": []})), (TRIALS.assign(status="failed"), RESULTS)):
        assert hypervolume_history(trials, results, OBJECTIVES).trial_ids == ()


def test_as_of_an_earlier_trial_what_came_before_it_is_as_it_was_then() -> None:
    rng = np.random.default_rng(1)
    trials = pd.DataFrame(rng.random((30, 2)), columns=["fid_mini", "vendi_mini"]).assign(
        trial_id=[str(i) for i in range(30)]
    )
    results = pd.DataFrame({"trial_id": trials["trial_id"], "epoch_s": 1.0})
    then = hypervolume_history(trials[:12], results[:12], OBJECTIVES)
    now = hypervolume_history(trials, results, OBJECTIVES, as_of=12)
    assert np.array_equal(now.volumes[:12], then.volumes) and now.volumes[11] == 1.0 < now.volumes[-1]
    whole = hypervolume_history(trials, results, OBJECTIVES)
    assert np.array_equal(hypervolume_history(trials, results, OBJECTIVES, as_of=99).volumes, whole.volumes)


def test_of_a_long_sweep_evenly_spaced_trials_are_told_as_each_would_be_by_itself() -> None:
    rng = np.random.default_rng(2)
    trials = pd.DataFrame(rng.random((700, 2)), columns=["fid_mini", "vendi_mini"]).assign(
        trial_id=[str(i) for i in range(700)]
    )
    history = hypervolume_history(
        trials, pd.DataFrame({"trial_id": trials["trial_id"], "epoch_s": 3600.0}), OBJECTIVES, as_of=333
    )
    assert {1, 333, 700} <= set(history.counts) and np.diff(history.counts).max() <= 4
    assert MOST_POINTS <= len(history.counts) <= MOST_POINTS + 1
    assert history.trial_ids == tuple(str(count - 1) for count in history.counts)
    np.testing.assert_allclose(history.hours, history.counts)
    values, directions = trials[["fid_mini", "vendi_mini"]].to_numpy(), ("min", "max")
    reference = nadir(values[:333], directions)
    alone = np.array([hypervolume(values[:count], directions, reference) for count in history.counts])
    np.testing.assert_allclose(history.volumes, alone / hypervolume(values[:333], directions, reference), rtol=1e-12)
