"""What Tune tells, and what of it the sweep hears."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.terminal import Interrupted
from sweep.config import SweepConfig
from sweep.interrupts import interruptible
from sweep.records.events import Ended, Placed, Retried, Started, read_events
from sweep.records.journal import Journal
from sweep.records.log import RecordLog
from sweep.trials.ends import BREAKS, FAILURE, TrialEnd, TrialListener
from sweep.trials.relay import Relay, own_values, root_message
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.suggestions import Suggestion

BITFIT = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}


def test_own_values_are_plain_and_not_rays() -> None:
    report = {"loss": np.float32(0.5), "final": True, "pid": 1, "config": {}, "done": False, "training_iteration": 1}
    assert own_values(report) == {"loss": 0.5, "final": True}


def test_a_trial_whose_process_never_started_is_a_failure_like_others(tmp_path: Path) -> None:
    """Tune tells of such a trial's error alone, without its start: a node that goes while the process comes up."""
    journal = Journal.open(tmp_path, SweepConfig(), {})
    trial = SimpleNamespace(config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=None)
    relay = Relay((journal,), (), TrialScheduler())
    relay.on_trial_error(1, [trial], trial)
    journal.finish()
    start, end = read_events(tmp_path / "events.log")
    assert start == Started(trial_id="a", number=0, choice=BITFIT)
    assert end == Ended(
        trial_id="a", kind="failed", reason="the trial's process died without a message", rung=None, lost=True
    )
    assert pd.read_parquet(tmp_path / "trials.parquet")["status"].tolist() == ["failed"]


def test_it_is_recorded_where_each_process_of_a_trial_runs_if_that_can_be_had(tmp_path: Path) -> None:
    journal, places = (
        Journal.open(tmp_path, SweepConfig(), {}),
        iter([("f00d", "10.0.0.2"), None, ("cafe", "10.0.0.3")]),
    )
    trial = SimpleNamespace(config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=None)
    relay = Relay((journal,), (), TrialScheduler(), place_of=lambda of: next(places))
    for _ in range(3):
        relay.on_trial_start(1, [trial], trial)
    assert list(read_events(tmp_path / "events.log")) == [
        Started(trial_id="a", number=0, choice=BITFIT),
        Placed(trial_id="a", node="f00d", address="10.0.0.2"),
        Placed(trial_id="a", node="cafe", address="10.0.0.3"),
    ]


def test_a_lost_trial_is_tried_again_as_often_as_may_be(tmp_path: Path) -> None:
    """Losses of a sweep's past count too; a trial that the past has started is not started again."""
    journal = Journal.open(tmp_path, SweepConfig(), {})
    suggestion = Suggestion(trial_id="a", number=0, choice=BITFIT)
    journal.on_start(suggestion)
    journal.on_retry("a", "a node died")
    trial = SimpleNamespace(config=suggestion.as_config(), error_file=None)
    relay = Relay((journal,), (), TrialScheduler(), max_retries=2, losses={"a": 1})
    for _ in range(2):
        relay.on_trial_start(1, [trial], trial)
        relay.on_trial_error(1, [trial], trial)
    died = "the trial's process died without a message"
    assert list(read_events(tmp_path / "events.log"))[2:] == [
        Retried(trial_id="a", reason=died),
        Ended(trial_id="a", kind="failed", reason=f"{died} (and 2 times before)", rung=None, lost=True),
    ]


def test_it_is_known_which_trials_have_a_process() -> None:
    """Nobody waits for others when the sweep is told to end."""
    relay = Relay((), (), TrialScheduler(), max_retries=1, losses={"c": 1})
    trials = [
        SimpleNamespace(config=Suggestion(trial_id=name, number=0, choice=BITFIT).as_config(), error_file=None)
        for name in "ab"
    ]
    for trial in trials:
        relay.on_trial_start(1, trials, trial)
    assert relay.running == {"a", "b"}
    relay.on_trial_error(1, trials, trials[0])
    trials[1].last_result = {"final": True}
    relay.on_trial_complete(1, trials, trials[1])
    assert relay.running == set()
    relay.on_trial_start(1, trials, trials[0])
    assert relay.running == {"a"}


def test_a_trial_is_told_of_before_its_process_works_on_it_however_often_it_gets_one() -> None:
    told = list[tuple[str, set[str]]]()
    relay = Relay(
        (), (), TrialScheduler(), losses={"a": 1}, before_start=lambda name: told.append((name, set(relay.running)))
    )
    trial = SimpleNamespace(config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=None)
    relay.on_trial_start(1, [trial], trial)
    relay.on_trial_start(1, [trial], trial)
    assert told == [("a", set()), ("a", {"a"})]


def test_a_trial_that_the_kernel_ends_for_want_of_memory_each_time_has_itself_to_blame(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SweepConfig(), {})
    trial = SimpleNamespace(config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=None)
    relay = Relay((journal,), (), TrialScheduler(), max_retries=1, kernel_kills=lambda: 1)
    for _ in range(2):
        relay.on_trial_error(1, [trial], trial)
    _, retry, end = read_events(tmp_path / "events.log")
    assert isinstance(retry, Retried) and "got the kernel ending 1 of" in retry.reason
    assert isinstance(end, Ended) and end.kind == "failed" and not end.lost
    assert "Lower training.micro_batch" in str(end.reason)


def test_a_trial_of_whose_end_nothing_is_written_is_lost_like_others(tmp_path: Path) -> None:
    """Tune makes the file first: on a full disk, nothing comes after that."""
    (tmp_path / "error").touch()
    heard = Recorder()
    trial = SimpleNamespace(
        config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=tmp_path / "error"
    )
    Relay((heard,), (), TrialScheduler(), max_retries=1).on_trial_error(1, [trial], trial)
    assert heard.events == ["start", "retry"]


def test_a_trial_that_finds_its_disk_full_each_time_ends_the_sweep_and_not_itself(tmp_path: Path) -> None:
    """When there is room again, the sweep goes on with it, and it may be lost as often as every other."""
    journal = Journal.open(tmp_path / "run", SweepConfig(), {"git_commit": None})
    (tmp_path / "error").write_text("OSError: [Errno 28] No space left on device: '/runs/a'")
    trial = SimpleNamespace(
        config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=tmp_path / "error"
    )
    relay = Relay((journal,), (), TrialScheduler(), max_retries=1)
    relay.on_trial_error(1, [trial], trial)
    with pytest.raises(OSError, match=r"`disk` must have room .*: '/runs/a'\. Free space there"):
        relay.on_trial_error(1, [trial], trial)
    assert isinstance(relay.broken, OSError)
    kinds = [type(event) for event in read_events(tmp_path / "run" / "events.log")]
    assert kinds == [Started, Retried]
    past = tuple(read_events(tmp_path / "run" / "events.log"))
    again = Journal(tmp_path / "run", (), RecordLog.reopen(tmp_path / "run" / "events.log"), past)
    assert again.losses() == {"a": 0}


def test_what_every_trial_would_fail_by_ends_the_sweep_and_no_trial(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, SweepConfig(), {})
    suggestion = Suggestion(trial_id="a", number=0, choice=BITFIT)
    trial = SimpleNamespace(config=suggestion.as_config(), error_file=None, last_result={})
    relay, changed = Relay((journal,), (), TrialScheduler()), "`data set` must be the one"
    relay.on_trial_start(1, [trial], trial)
    for tell in (
        lambda: relay.on_trial_result(1, [trial], trial, {FAILURE: changed, BREAKS: True}),
        lambda: relay.on_trial_complete(1, [trial], trial),
    ):
        with pytest.raises(RuntimeError, match=f"^{changed}$"):
            tell()
    assert [type(event) for event in read_events(tmp_path / "events.log")] == [Started]


class FullDisk(TrialListener):
    """A listener that cannot write of an end."""

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        raise OSError(28, "No space left on device")


def test_a_listener_that_fails_is_no_loss_of_the_trials_machine() -> None:
    """Tune catches what is raised at a trial's end and tells of an error of the trial, which would be tried again."""
    heard, broken_off = Recorder(), list[set[str]]()
    relay = Relay(
        (heard, FullDisk()),
        ("fid",),
        TrialScheduler(),
        max_retries=3,
        on_break=lambda running: broken_off.append(set(running)),
    )
    healthy = SimpleNamespace(config=Suggestion(trial_id="b", number=1, choice=BITFIT).as_config())
    relay.on_trial_start(1, [healthy], healthy)
    trial = SimpleNamespace(
        config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(),
        error_file=None,
        last_result={"fid": 1.0, "final": True},
    )
    with pytest.raises(OSError, match="No space left on device"):
        relay.on_trial_complete(1, [trial], trial)
    with pytest.raises(OSError, match="No space left on device"):
        relay.on_trial_error(1, [trial], trial)
    assert heard.events == ["start", "start", "end"] and isinstance(relay.broken, OSError)
    assert broken_off == [{"b"}]  # which is to keep where it is, once


def test_an_interrupt_that_was_lost_ends_the_sweep_at_tunes_next_step() -> None:
    relay = Relay((), ("fid",), TrialScheduler())
    with pytest.raises(Interrupted), interruptible():
        with suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        relay.on_step_begin(1, [])
        pytest.fail("it went on")


class Recorder(TrialListener):
    """Remembers what kinds of events it heard."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_start(self, suggestion: Suggestion) -> None:
        self.events.append("start")

    def on_retry(self, trial_id: str, reason: str) -> None:
        self.events.append("retry")

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        self.events.append("end")


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("Traceback\n  File x\nValueError: `a` must be b", "ValueError: `a` must be b"),
        (
            "ray::f()\ntrainables.training.DivergedError: `loss` must stay finite",
            "DivergedError: `loss` must stay finite",
        ),
        ("OSError: first\n\nThe above exception\n\nray.exceptions.RayTaskError: last", "RayTaskError: last"),
        ("killed", "killed"),
        ("\n", "a process died without a message"),
    ],
)
def test_the_message_at_the_root_of_a_trace(trace: str, message: str) -> None:
    assert root_message(trace) == message
