"""Logs of every format that there was are read for good: runs outlive versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_events import EVENTS

from sweep.records.events import Ended, Placed, Started, read_events
from sweep.records.log import FORMAT, RecordLog, read_log

LOGS = Path(__file__).with_name("logs")


def test_the_log_of_every_format_is_kept() -> None:
    """A change of the format adds a file and its reader; none is ever written anew."""
    assert sorted(path.name for path in LOGS.iterdir()) == [f"format-{number}.log" for number in range(1, FORMAT + 1)]


def test_format_1_is_read_as_it_was_meant() -> None:
    """It was written before records said which configurations were over a limit and where trials run, its first ends before
    trials were lost."""
    placeless = [event for event in EVENTS if not isinstance(event, Placed)]
    before = [replace(event, rejected=[]) if isinstance(event, Started) else event for event in placeless[:11]]
    lost = Ended(trial_id="c", kind="failed", reason="its node died", rung=None, lost=True)
    assert list(read_events(LOGS / "format-1.log")) == [*before, lost]


@pytest.mark.parametrize("path", sorted(LOGS.iterdir()), ids=lambda path: path.stem)
def test_a_sweep_goes_on_in_a_log_of_an_older_format(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "events.log"
    copy.write_bytes(path.read_bytes())
    log = RecordLog.reopen(copy)
    log.append("retry", {"trial_id": "c", "reason": "once more"})
    log.close()
    assert copy.read_bytes().startswith(path.read_bytes())
    assert len(read_log(copy).records) == len(read_log(path).records) + 1
