"""What Tune is told at rungs, and that a stop is the same everywhere: log, tables, Optuna, and after a break."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeGuard

import pandas as pd
import pytest
from optuna.trial import TrialState

from search_spaces import SEARCH_SPACES
from sweep.config import SearchConfig, SweepConfig
from sweep.engine import stopping_of
from sweep.records.events import Ended, Event, Reported, read_events
from sweep.records.journal import Journal
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import REASON, RUNG, OptunaSearcher
from sweep.search.stopping import Stopping
from sweep.trials.ends import FAILURE, FINAL
from sweep.trials.relay import Relay
from sweep.trials.scheduling import RungScheduler

pytestmark = pytest.mark.slow

CONFIG = SweepConfig(search=SearchConfig(scheduler="hypervolume"))
COSTS = {"trainable_parameters": 1000, "epoch_s": 1.0, "loss": 0.5, "images_per_s": 9.0}


class Sweep:
    """Journal, searcher and trial scheduler of a sweep over LoRA alone, as Tune would drive them."""

    def __init__(self, out: Path) -> None:
        self.journal = Journal.open(out, CONFIG, {"git_commit": None, "data_fingerprint": "d", "base": "b"})
        self.searcher = OptunaSearcher(
            SEARCH_SPACES["mini"],
            CONFIG.reported_objectives(),
            sampler=SEARCH_SAMPLERS["random"],
            num_trials=9,
            seed=0,
            strategies=("lora",),
        )
        self.stopping: Stopping = stopping_of(CONFIG, self.searcher)
        for event in self.journal.past:
            for listener in (self.stopping, self.searcher):
                event.tell(listener)
        self.scheduler = RungScheduler(self.stopping)
        names = [objective.name for objective in CONFIG.reported_objectives()]
        self.relay = Relay((self.journal, self.stopping, self.searcher), names, self.scheduler)

    def start(self) -> SimpleNamespace:
        trial = SimpleNamespace(config=self.searcher.suggest("Tune's name"), last_result={})
        self.relay.on_trial_start(1, [trial], trial)
        return trial

    def report(self, trial: SimpleNamespace, result: dict[str, Any]) -> str:
        """In Tune's own order: it asks, then it tells."""
        decision, trial.last_result = self.scheduler.on_trial_result(None, trial, result), result
        self.relay.on_trial_result(1, [trial], trial, result)
        return decision

    def end(self, trial: SimpleNamespace) -> None:
        self.relay.on_trial_complete(1, [trial], trial)


def early(fid: float) -> dict[str, Any]:
    return {"epoch": 0, FINAL: False, **COSTS, "early_fid_mini": fid, "early_vendi_mini": 3.0}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Four trials have reached the rung after the first of three epochs, and have ended."""
    sweep = Sweep(tmp_path / "run")
    for number in range(4):
        trial = sweep.start()
        assert sweep.report(trial, early(10.0 + number)) == "CONTINUE"
        last = {"epoch": 2, FINAL: True, **COSTS, "fid_mini": 9.0 + number, "vendi_mini": 3.0}
        assert sweep.report(trial, last) == "CONTINUE"
        sweep.end(trial)
    return sweep


def test_a_trial_that_is_beaten_at_a_rung_is_stopped_everywhere(sweep: Sweep) -> None:
    good, bad = sweep.start(), sweep.start()
    assert sweep.report(good, early(5.0)) == "CONTINUE"
    assert sweep.report(bad, early(30.0)) == "STOP"
    sweep.end(bad)
    name = bad.config["trial_id"]
    *_, end = read_events(sweep.journal.out / "events.log")
    assert isinstance(end, Ended) and (end.trial_id, end.kind, end.rung) == (name, "stopped", 0)
    front = sweep.journal.finish()
    row = pd.read_parquet(sweep.journal.out / "trials.parquet").set_index("trial_id").loc[name]
    assert (row["status"], row["early_fid_mini"], row["reason"]) == ("stopped", 30.0, end.reason)
    assert pd.isna(row["fid_mini"]) and name not in {point.trial_id for point in front.points}
    assert sweep.searcher.record(name).state == TrialState.PRUNED
    assert sweep.searcher.record(name).user_attrs[RUNG] == 0


def test_a_break_between_the_report_and_the_end_of_a_stopped_trial_loses_no_decision(sweep: Sweep) -> None:
    """The log has the report alone; what decided is made anew from it, and knows the end that was due."""
    bad = sweep.start()
    assert sweep.report(bad, early(30.0)) == "STOP"
    sweep.journal.finish()
    again = Sweep(sweep.journal.out)
    name = bad.config["trial_id"]
    due = again.stopping.undone()
    assert set(due) == {name} and due[name] == sweep.scheduler.stopped(name)
    other = again.start()
    assert again.report(other, early(30.0)) == "STOP"


def test_a_report_that_is_repeated_is_told_and_decided_once(sweep: Sweep) -> None:
    """A trial that is suspended repeats what may not have been heard; an epoch that is trained anew takes other seconds."""
    good = sweep.start()
    name = good.config["trial_id"]
    assert sweep.report(good, early(5.0)) == "CONTINUE"
    for fid in (4.0, 3.0, 2.0, 1.0):  # beside which it would be stopped now
        assert sweep.report(sweep.start(), early(fid)) == "CONTINUE"
    sweep.journal.finish()
    again = Sweep(sweep.journal.out)
    assert again.report(good, {**early(5.0), "pid": 7}) == "CONTINUE"
    assert again.report(good, {**early(5.0), "epoch_s": 1.5}) == "STOP"
    told = [event.metrics for event in read_events(again.journal.out / "events.log") if is_report(event, name)]
    assert [metrics["epoch_s"] for metrics in told] == [1.0, 1.5]


def is_report(event: Event, trial_id: str) -> TypeGuard[Reported]:
    return isinstance(event, Reported) and event.trial_id == trial_id


def test_a_failed_trial_is_not_stopped(sweep: Sweep) -> None:
    trial = sweep.start()
    assert sweep.report(trial, {FAILURE: "`loss` must be finite"}) == "CONTINUE"
    assert sweep.scheduler.stopped(trial.config["trial_id"]) is None
    sweep.relay.on_trial_complete(1, [trial], trial)
    record = sweep.searcher.record(trial.config["trial_id"])
    assert (record.state, record.user_attrs[REASON]) == (TrialState.PRUNED, "`loss` must be finite")
