"""The event log: on disk at once, read as it was written, and enough to build the tables from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analysis.front.pareto import Objective
from sweep.config import SweepConfig
from sweep.records.events import (
    BaselineScored,
    Cut,
    Ended,
    Event,
    Placed,
    Reported,
    Resumed,
    Retried,
    Started,
    parse_events,
    read_events,
    record,
)
from sweep.records.journal import Journal
from sweep.records.log import RecordLog
from sweep.records.tables import Tables
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

DYLORA = {
    "strategy": {"name": "dylora", "rank": 4, "alpha": 0.1, "evaluated_ranks": [2, 4]},
    "lr": 1e-3,
    "batch_size": 16,
}
SCORES = {"fid_mini": 1 / 3, "vendi_mini": 2.0, "trainable_parameters": 80, "epoch_s": 0.1}
EVENTS: list[Event] = [
    Started(trial_id="a", number=0, choice=DYLORA),
    Placed(trial_id="a", node="f00d", address="10.0.0.2"),
    Reported(trial_id="a", metrics={"epoch": 0, "loss": math.inf, "final": False, "note": "nan"}),
    Reported(trial_id="a", metrics={"epoch": 1, "loss": 0.1 + 0.2, "final": True, **SCORES}),
    Cut(cut_id="a-rank2", trial_id="a", choice=DYLORA, metrics={"epoch": 1, **SCORES, "trainable_parameters": 40}),
    Ended(trial_id="a-rank2", kind="completed", reason=None, rung=None),
    Ended(trial_id="a", kind="completed", reason=None, rung=None),
    Started(
        trial_id="b",
        number=1,
        choice=DYLORA,
        params={"strategy": "dylora"},
        distributions={"strategy": "{}"},
        rejected=[
            {"params": {"strategy": "unet"}, "distributions": {"strategy": "{}"}, "excess": {"adapter_mib": 9.0}}
        ],
    ),
    Ended(trial_id="b", kind="stopped", reason="`fid` is beaten", rung=2),
    BaselineScored(scores={"fid_mini": 9.0}),
    Retried(trial_id="b", reason="its node died"),
    Resumed(provenance={"git_commit": None}),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    written = RecordLog.create(tmp_path / "events.log")
    for event in EVENTS:
        record(written, event)
    written.close()
    return tmp_path / "events.log"


def test_events_are_read_as_they_were_written(log: Path) -> None:
    assert list(read_events(log)) == EVENTS


def test_a_line_is_json_that_any_program_reads_with_its_time(log: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    lines = [json.loads(line[18:], parse_constant=refuse) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == [
        "log",
        "start",
        "place",
        "report",
        "report",
        "cut",
        "end",
        "end",
        "start",
        "end",
        "baseline",
        "retry",
        "resume",
    ]
    assert lines[0]["format"] == 1
    times = [line["time"] for line in lines]
    assert times == sorted(times) and pd.to_datetime(times).tz is not None


def test_an_event_is_on_disk_before_the_next(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SweepConfig(), {})
    for number, event in enumerate(EVENTS[:-1], start=1):  # that a sweep goes on is not told by a listener
        event.tell(journal)
        assert list(read_events(tmp_path / "events.log")) == EVENTS[:number]


def test_the_tables_follow_from_the_log_alone(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SweepConfig(), {})
    for event in EVENTS:
        event.tell(journal)
    journal.on_start(Suggestion(trial_id="c", number=2, choice=DYLORA))
    front = journal.finish()
    again = Tables(SweepConfig().reported_objectives())
    for event in read_events(tmp_path / "events.log"):
        event.tell(again)
    for name, table in (("trials", again.trials()), ("results", again.results())):
        kept = pd.read_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(kept, table, check_dtype=False, check_exact=True)
    assert again.front() == front and [point.trial_id for point in front.points] == ["a-rank2"]
    assert again.running() == ["c"] and again.baseline == {"fid_mini": 9.0}
    assert again.trials()["status"].tolist() == ["completed", "completed", "stopped", "running"]


@pytest.mark.parametrize(
    "record", [{"event": "end"}, {"event": "never heard of"}, {}, {"event": "retry", "trial_id": "a", "why": "b"}]
)
def test_a_record_that_is_no_event_is_named(record: dict[str, str]) -> None:
    with pytest.raises(
        ValueError, match=r"`event log` must hold events that this version knows, but got .* as event 1"
    ):
        list(parse_events([record]))


@pytest.mark.parametrize("name", ["../../other/trials/a", "/home", "..", ""])
@pytest.mark.parametrize("field", ["trial_id", "cut_id"])
def test_a_name_that_leads_elsewhere_is_refused_before_it_becomes_a_path(name: str, field: str) -> None:
    """A sweep that goes on removes the checkpoints of trials that have ended."""
    cut = {"event": "cut", "cut_id": "a-rank2", "trial_id": "a", "choice": {}, "metrics": {}}
    with pytest.raises(ValueError, match=r"`trial_id` must be letters.*Somebody has changed the event log"):
        list(parse_events([{**cut, field: name}]))


def test_a_table_has_every_objective_also_before_the_first_report() -> None:
    tables = Tables((Objective("fid_mini", "min"),))
    assert tables.trials().empty and "fid_mini" in tables.trials() and tables.front().points == ()
    tables.on_start(Suggestion(trial_id="a", number=0, choice=DYLORA))
    tables.on_end("a", TrialEnd.failed("out of memory"))
    assert tables.trials()["fid_mini"].isna().all()
