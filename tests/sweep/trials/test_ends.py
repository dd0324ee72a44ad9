"""How a trial ends: decided in one place, by its last report or by who stopped it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from optuna.trial import FrozenTrial

from sweep.config import SweepConfig
from sweep.records.journal import Journal
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.trials.ends import FAILURE, FINAL, LOST, TrialEnd, end_of
from sweep.trials.relay import Relay
from sweep.trials.scheduling import TrialScheduler

OBJECTIVES = ("fid_mini", "vendi_mini")
GOOD = {"fid_mini": 1.0, "vendi_mini": 2.0, FINAL: True}


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({**GOOD, "fid_mini": math.nan}, "`fid_mini` must be finite, but got nan"),
        ({**GOOD, "vendi_mini": math.inf}, "`vendi_mini` must be finite, but got inf"),
        ({"fid_mini": 1.0, FINAL: True}, "`vendi_mini` must be in the final report, but got none"),
        ({"fid_mini": 1.0, "vendi_mini": 1.0}, "the trial ended before its final report"),
        ({**GOOD, FINAL: False}, "the trial ended before its final report"),
        ({}, "the trial ended before its final report"),
        ({FAILURE: "DivergedError: nan"}, "DivergedError: nan"),
    ],
)
def test_what_is_not_a_final_finite_report_is_a_failure_with_the_reason(report: dict[str, Any], reason: str) -> None:
    assert end_of(report, OBJECTIVES) == TrialEnd.failed(reason)
    assert end_of(GOOD, OBJECTIVES) == TrialEnd.completed()


def test_a_failure_says_whether_the_configuration_is_at_fault() -> None:
    assert not end_of({FAILURE: "DivergedError: nan", LOST: False}, OBJECTIVES).lost
    assert end_of({FAILURE: "EvaluationError: its actor died", LOST: True}, OBJECTIVES).lost


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "completed", "reason": "why"},
        {"kind": "failed"},
        {"kind": "stopped", "reason": "why"},
        {"kind": "failed", "reason": "why", "rung": 1},
        {"kind": "stopped", "reason": "why", "rung": 1, "lost": True},
    ],
)
def test_an_end_that_says_too_little_or_too_much_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"`TrialEnd` must have a reason unless it is completed.* but got"):
        TrialEnd(**fields)


def space(trial: Any, strategies: tuple[str, ...] = ("bitfit",)) -> dict[str, Any]:
    name = trial.suggest_categorical("strategy", strategies)
    return {"strategy": {"name": name}, "lr": trial.suggest_float("lr", 1e-4, 1e-2), "batch_size": 9}


class Sweep:
    """A journal and a study behind the relay, and one trial of which Tune tells."""

    def __init__(self, out: Path) -> None:
        objectives = SweepConfig().reported_objectives()
        self.journal = Journal.open(out, SweepConfig(), {})
        self.searcher = OptunaSearcher(space, objectives, sampler=SEARCH_SAMPLERS["random"], num_trials=3, seed=0)
        self.scheduler = TrialScheduler()
        names = [objective.name for objective in objectives]
        self.relay = Relay((self.journal, self.searcher), names, self.scheduler)
        self.trial = SimpleNamespace(config=self.searcher.suggest("what Tune calls it"), last_result={})
        self.relay.on_trial_start(1, [self.trial], self.trial)

    def report(self, **metrics: Any) -> None:
        self.trial.last_result = metrics
        self.relay.on_trial_result(1, [self.trial], self.trial, metrics)

    def complete(self) -> tuple[list[str], str, int]:
        """Status in the journal, state in the study and points of the front once Tune calls the trial complete."""
        self.relay.on_trial_complete(1, [self.trial], self.trial)
        points = self.journal.finish().points
        rows = pd.read_parquet(self.journal.out / "trials.parquet")
        return rows["status"].tolist(), self.record().state.name, len(points)

    def record(self) -> FrozenTrial:
        """Optuna's record of the trial."""
        return self.searcher.record(self.trial.config["trial_id"])


SCORES = {"fid_mini": 1.0, "vendi_mini": 2.0, "trainable_parameters": 3, "epoch_s": 0.5}


def test_a_trial_that_ends_after_an_early_report_with_all_objectives_is_no_point(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.report(epoch=0, final=False, **SCORES)
    assert sweep.complete() == (["failed"], "PRUNED", 0)


def test_a_final_report_with_all_objectives_is_a_point(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.report(epoch=0, final=True, **SCORES)
    assert sweep.complete() == (["completed"], "COMPLETE", 1)


def test_a_final_report_without_a_finite_objective_has_failed_for_the_journal_and_the_study(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    sweep.report(epoch=0, final=True, **{**SCORES, "fid_mini": math.nan})
    assert sweep.complete() == (["failed"], "PRUNED", 0)


def test_a_stopped_trial_is_stopped_for_the_journal_and_pruned_for_the_study(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    assert sweep.scheduler.stop(sweep.trial.config["trial_id"], "it gains too little", rung=0) == "STOP"
    sweep.report(epoch=0, final=False, **SCORES)
    assert sweep.complete() == (["stopped"], "PRUNED", 0)
    assert sweep.record().user_attrs["reason"] == "it gains too little"


@pytest.mark.parametrize(
    ("report", "end"),
    [({**GOOD}, TrialEnd.completed()), ({FAILURE: "DivergedError: nan"}, TrialEnd.failed("DivergedError: nan"))],
)
def test_a_trial_that_was_over_is_beyond_being_stopped(report: dict[str, Any], end: TrialEnd) -> None:
    """A scheduler may stop a trial at its last report, or at the one that says that it diverged."""
    stopped = TrialEnd.stopped("beaten", rung=1)
    assert end_of(report, OBJECTIVES, stopped=stopped) == end
    assert end_of({**GOOD, FINAL: False}, OBJECTIVES, stopped=stopped) == stopped


def test_a_cut_without_a_finite_objective_has_failed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    strategy = {"name": "dylora", "rank": 2}
    lacking = {"epoch": 0, "strategy": strategy, **SCORES, "fid_mini": math.nan}
    sweep.report(
        epoch=0, final=True, **SCORES, cuts={"rank2": lacking, "rank4": {**SCORES, **lacking, "fid_mini": 0.5}}
    )
    assert sweep.complete() == (["completed", "failed", "completed"], "COMPLETE", 1)
    reasons = sweep.journal.tables.trials()["reason"].dropna().tolist()
    assert reasons == ["`fid_mini` must be finite, but got nan"]
