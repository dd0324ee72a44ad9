"""What trials kept to go on with goes when they have ended, however they did, and not before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sweep.config import SweepConfig
from sweep.records.journal import Journal
from sweep.trials.ends import TrialEnd
from sweep.trials.leftovers import EndedCheckpoints
from sweep.trials.relay import Relay
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.suggestions import Suggestion
from trainables.checkpoints import Checkpoint, read_checkpoint, write_checkpoint

BITFIT = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the trial `a`, which keeps a checkpoint."""
    _keep(tmp_path / "a")
    return tmp_path / "a"


def _keep(trial: Path) -> None:
    write_checkpoint(trial, Checkpoint(tensors={"weights/a": torch.ones(1)}, facts={}))


def _trial(**known: Any) -> SimpleNamespace:
    return SimpleNamespace(
        config=Suggestion(trial_id="a", number=0, choice=BITFIT).as_config(), error_file=None, **known
    )


@pytest.mark.parametrize(
    "end",
    [
        TrialEnd.completed(),
        TrialEnd.failed("it diverged"),
        TrialEnd.failed("lost", lost=True),
        TrialEnd.stopped("x", 0),
    ],
)
def test_a_trial_keeps_nothing_after_any_end(folder: Path, end: TrialEnd) -> None:
    EndedCheckpoints(folder.with_name).on_end("a", end)
    assert read_checkpoint(folder) is None and list(folder.iterdir()) == []


def test_a_lost_trial_keeps_its_checkpoint_until_it_is_not_tried_again(folder: Path) -> None:
    relay = Relay((EndedCheckpoints(folder.with_name),), (), TrialScheduler(), max_retries=1)
    relay.on_trial_error(1, [], _trial())
    assert read_checkpoint(folder) is not None
    relay.on_trial_error(1, [], _trial())
    assert read_checkpoint(folder) is None


def test_a_stopped_trial_keeps_none_and_nothing_that_its_process_still_wrote(folder: Path) -> None:
    scheduler = TrialScheduler()
    ended = EndedCheckpoints(folder.with_name)
    scheduler.stop("a", "worse than others", rung=0)
    Relay((ended,), (), scheduler).on_trial_complete(1, [], _trial(last_result={"loss": 1.0}))
    assert read_checkpoint(folder) is None
    _keep(folder)
    ended.remove_again()
    assert read_checkpoint(folder) is None


def test_a_sweep_that_goes_on_removes_those_of_trials_that_have_ended_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    journal = Journal.open(out, SweepConfig(), {"data_fingerprint": "d", "base": "mini"})
    relay = Relay((journal,), (), TrialScheduler())
    relay.on_trial_error(1, [], _trial())
    journal.on_start(Suggestion(trial_id="b", number=1, choice=BITFIT))
    journal.finish()
    _keep(folder.with_name("b"))
    again = Journal.open(out, SweepConfig(), {"data_fingerprint": "d", "base": "mini"})
    for event in again.past:
        event.tell(EndedCheckpoints(folder.with_name))
    again.finish()
    assert read_checkpoint(folder) is None and read_checkpoint(folder.with_name("b")) is not None
