"""The study on disk: the same trials as the search's own study, from the log alone, and behind it without being waited for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from analysis.front.pareto import Objective
from sweep.records.events import BaselineScored, Ended, Event, Reported, Started, record
from sweep.records.log import RecordLog
from sweep.records.study_store import StudyStore, rebuild_study, sqlite_address

pytestmark = pytest.mark.slow

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
LR = {"lr": distribution_to_json(FloatDistribution(1e-5, 1e-2, log=True))}


def started(trial_id: str, number: int, rejected: int = 0) -> Started:
    over = {"params": {"lr": 2e-5}, "distributions": LR, "excess": {"adapter_mib": 0.5}}
    return Started(
        trial_id=trial_id,
        number=number,
        choice={"strategy": {"name": "lora", "rank": 4}, "lr": 1e-3, "batch_size": 16},
        params={"lr": 1e-3},
        distributions=LR,
        rejected=[over] * rejected,
    )


def report(trial_id: str, epoch: int, **scores: float) -> Reported:
    return Reported(trial_id=trial_id, metrics={"epoch": epoch, "loss": 0.5, **scores})


EVENTS: list[Event] = [
    started("a", 0),
    report("a", 0),
    started("b", 1, rejected=2),
    report("a", 1, fid_mini=3.0, vendi_mini=2.0),
    Ended(trial_id="a", kind="completed", reason=None, rung=None),
    BaselineScored(scores={"fid_mini": 9.0}),
    report("b", 0, early_fid_mini=8.0),
    Ended(trial_id="b", kind="stopped", reason="it is beaten", rung=0),
    started("c", 2),
    Ended(trial_id="c", kind="failed", reason="a machine was lost", rung=None, lost=True),
    started("d", 3),
]
STATES = [
    TrialState.COMPLETE,
    *[TrialState.PRUNED] * 3,
    TrialState.FAIL,
    TrialState.RUNNING,
]


def logged(out: Path, events: list[Event]) -> None:
    out.mkdir(exist_ok=True)
    path = out / "events.log"
    log = RecordLog.reopen(path) if path.exists() else RecordLog.create(path)
    for event in events:
        record(log, event)
    log.close()


def study_of(out: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{out / 'study.db'}")


def content(trial: FrozenTrial, *, timed: bool) -> dict[str, Any]:
    facts = {"state": trial.state, "values": trial.values, "params": trial.params, "attrs": trial.user_attrs}
    return facts | ({"start": trial.datetime_start, "end": trial.datetime_complete} if timed else {})


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rebuilt") / "run"
    logged(out, EVENTS)
    rebuild_study(out, OBJECTIVES)
    return out


def test_the_study_holds_every_trial_of_the_log_as_it_ended(rebuilt: Path) -> None:
    study = study_of(rebuilt)
    assert [trial.state for trial in study.trials] == STATES
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["fid_mini", "vendi_mini"]
    (best,) = study.best_trials
    assert (best.values, best.params, best.user_attrs["trial_id"]) == ([3.0, 2.0], {"lr": 1e-3}, "a")
    stopped = study.trials[3].user_attrs
    assert (stopped["reason"], stopped["rung"], stopped["strategy"], stopped["epochs"]) == (
        "it is beaten",
        0,
        "lora",
        1,
    )


def test_made_anew_it_is_the_same_with_the_logs_own_times(rebuilt: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    again.mkdir()
    (again / "events.log").write_bytes((rebuilt / "events.log").read_bytes())
    (again / "study.db").write_bytes(b"damaged")
    rebuild_study(again, OBJECTIVES)
    before, after = (
        [content(trial, timed=True) for trial in study_of(out).get_trials(deepcopy=False)] for out in (rebuilt, again)
    )
    assert after == before
    assert all(trial["end"] >= trial["start"] for trial in before if trial["end"])
    assert [path.name for path in again.iterdir() if "partial" in path.name] == []


def test_whoever_has_it_open_sees_it_made_anew(tmp_path: Path) -> None:
    logged(tmp_path, EVENTS[:1])
    rebuild_study(tmp_path, OBJECTIVES)
    with closing(sqlite3.connect(tmp_path / "study.db")) as dashboard:
        (before,) = dashboard.execute("SELECT count(*) FROM trials").fetchone()
        logged(tmp_path, EVENTS[1:])
        rebuild_study(tmp_path, OBJECTIVES)
        (after,) = dashboard.execute("SELECT count(*) FROM trials").fetchone()
    assert before < after == len(STATES)


@pytest.mark.parametrize("num_past", [0, 3])
def test_what_follows_a_running_sweep_ends_as_what_is_made_from_its_log(
    rebuilt: Path, tmp_path: Path, num_past: int
) -> None:
    out = tmp_path / "run"
    logged(out, EVENTS[:num_past])
    store = StudyStore(out, OBJECTIVES, num_past)
    for event in EVENTS[num_past:]:
        logged(out, [event])
        event.tell(store)
    while store._outbox.num_waiting():
        pass
    assert store.close() is None
    live, wanted = ([content(trial, timed=False) for trial in study_of(folder).trials] for folder in (out, rebuilt))
    assert live == wanted


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    out = tmp_path / "r1 100% x #3? it's;&=+%20{}"
    logged(out, EVENTS)
    rebuild_study(out, OBJECTIVES)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert sorted(path.name for path in out.iterdir()) == ["events.log", "study.db"]
    study = optuna.load_study(study_name=None, storage=sqlite_address(out / "study.db"))
    assert [trial.state for trial in study.trials] == STATES


def test_a_store_that_cannot_be_written_is_told_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    logged(out, [])
    (out / ".study.db.partial").mkdir()
    store = StudyStore(out, OBJECTIVES, 0)
    for event in EVENTS:
        event.tell(store)
    said = store.close()
    assert said is not None and said.startswith("study.db lacks trials: ") and "sweep.ui" in said
