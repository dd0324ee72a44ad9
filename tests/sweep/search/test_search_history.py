"""What a search remembers of its trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

from analysis.front.hypervolume import comparable
from analysis.front.pareto import Objective, minimised
from sweep.search.history import History, reported
from sweep.trials.ends import FINAL, TrialEnd
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"), Objective("trainable_parameters", "min"))


def begun(*trial_ids: str) -> History:
    history = History(OBJECTIVES)
    for number, trial_id in enumerate(trial_ids):
        choice = {"strategy": {"name": "lora"}}
        suggestion = Suggestion(trial_id=trial_id, number=number, choice=choice, params={"lora/lr": 1e-3})
        history.on_start(suggestion)
    return history


def at_rung(epoch: int, fid: float, vendi: float = 3.0) -> Mapping[str, float]:
    return {
        "epoch": epoch,
        "early_fid_mini": fid,
        "early_fid_mini_se": 2.0,
        "early_vendi_mini": vendi,
        "trainable_parameters": 1000,
    }


def test_rungs_and_the_end_are_kept_with_every_objective_to_be_minimised() -> None:
    history = begun("a")
    history.on_report("a", at_rung(0, 40.0))
    history.on_report("a", {"epoch": 1, "loss": 0.1})
    history.on_report("a", {FINAL: True, "epoch": 8, "fid_mini": 20.0, "vendi_mini": 4.0, "trainable_parameters": 100})
    history.on_end("a", TrialEnd.completed())
    (trial,) = history
    assert [measurement.epochs for measurement in trial.measured] == [1, math.inf] and not trial.is_open
    np.testing.assert_allclose(trial.measured[0].values, [40.0, -3.0, 3.0])
    np.testing.assert_allclose(trial.measured[0].errors, [2.0, 0.0, 0.0])
    assert trial.end is trial.measured[1]
    np.testing.assert_allclose(trial.end.values, [20.0, -4.0, 2.0])


def test_an_epoch_that_is_reported_anew_takes_the_place_of_the_old() -> None:
    history = begun("a")
    for epoch, fid in ((0, 40.0), (2, 30.0), (0, 41.0)):
        history.on_report("a", at_rung(epoch, fid))
    (trial,) = history
    assert [(measurement.epochs, measurement.values[0]) for measurement in trial.measured] == [(1, 41.0)]


def test_of_costs_alone_the_end_says_all() -> None:
    """Every epoch reports them: a search would learn the same from twenty reports of each trial."""
    history = History(OBJECTIVES[2:])
    choice = {"strategy": {"name": "lora"}}
    history.on_start(Suggestion(trial_id="a", number=0, choice=choice))
    history.on_report("a", {"epoch": 0, "trainable_parameters": 1000})
    history.on_report("a", {FINAL: True, "epoch": 1, "trainable_parameters": 1000})
    history.on_end("a", TrialEnd.completed())
    (trial,) = history
    assert [measurement.epochs for measurement in trial.measured] == [math.inf]


def test_what_was_stopped_failed_or_could_not_be_scored_has_no_end() -> None:
    history = begun("a", "b", "c")
    history.on_report("a", at_rung(0, 40.0))
    history.on_end("a", TrialEnd.stopped("beaten", rung=0))
    history.on_report("b", at_rung(0, math.nan))
    history.on_end("b", TrialEnd.failed("out of memory"))
    history.on_end("b-rank4", TrialEnd.completed())  # a smaller adapter that was cut out of a training
    assert [(trial.number, trial.is_open, trial.end, len(trial.measured)) for trial in history] == [
        (0, False, None, 1),
        (1, False, None, 1),
        (2, True, None, 0),
    ]
    failed = list(history)[1].measured[0].values
    np.testing.assert_array_equal(failed, [math.inf, math.inf, math.nan])
    lost = begun("a")
    lost.on_end("a", TrialEnd.failed("its machine was lost", lost=True))
    assert [trial.measured for trial in lost] == [[]]


def test_a_trial_that_is_suggested_and_then_begun_is_one() -> None:
    history = begun("a")
    history.on_start(Suggestion(trial_id="a", number=0, choice={"strategy": {"name": "lora"}}))
    assert [dict(trial.params) for trial in history] == [{"lora/lr": 1e-3}]


def test_a_report_says_what_its_numbers_are_as_a_table() -> None:
    """To the sign of a zero, as a search that goes on suggests what it would have suggested."""
    objectives = (*OBJECTIVES, Objective("images_per_s", "max"))
    names = [objective.name for objective in objectives]
    drawn = np.random.default_rng(0).lognormal(size=(500, 4)).tolist()
    odd = itertools.product([math.nan, math.inf, -math.inf, -1.0, -0.0, 3.0], repeat=4)
    for row in [*drawn, *odd]:
        metrics = dict(zip(names, row, strict=True)) | {
            f"{name}_se": value for name, value in zip(names, row, strict=True)
        }
        values, errors = reported(metrics, objectives, names)
        table = minimised(comparable([row], objectives), [objective.direction for objective in objectives])
        for made, due in ((values, table[0]), (errors, np.nan_to_num(row))):
            np.testing.assert_array_equal(made, due)
            there = ~np.isnan(due)
            np.testing.assert_array_equal(np.signbit(made[there]), np.signbit(due[there]))
