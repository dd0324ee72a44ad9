"""What a trial keeps to go on with, apart from the numbers of its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from trainables.checkpoints import FACTS, FOLDER
from trainables.datasets.store import PreparedDataset
from trainables.keeping import plain
from trainables.settings import TrainingConfig
from trainables.trial import TrialSpec, fine_tune

pytestmark = pytest.mark.slow


class _Scores:
    """An evaluator that takes no time."""

    def evaluate(self, adapter: Path, share_done: float) -> Mapping[str, float]:
        return {"score": 1.0}


class _KilledError(BaseException):
    """The process's end."""


def _spec(dataset: PreparedDataset, out: Path) -> TrialSpec:
    training = TrainingConfig(num_epochs=3, mixed_precision="no", checkpoint_every_s=0, micro_batch=16)
    return TrialSpec(
        base="mini",
        dataset=dataset.folder,
        folder=out / "trial",
        cache_folder=out / "cache",
        strategy={"name": "bitfit"},
        lr=1e-3,
        batch_size=32,
        seed=3,
        training=training,
    )


def _killed_at_its_second_report(spec: TrialSpec) -> dict[str, Any]:
    """The first report of a trial that is killed as it makes the second."""
    taken = list[dict[str, Any]]()

    def take_first(report: dict[str, Any]) -> None:
        if taken:
            raise _KilledError
        taken.append(report)

    with pytest.raises(_KilledError):
        fine_tune(spec, _Scores(), take_first)
    return taken[0]


def test_a_report_that_a_lost_group_had_on_its_way_is_repeated(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train takes a group's report and hands it on seconds later, or dies with it, as it does here."""
    monkeypatch.setattr(Accelerator, "num_processes", 2)  # the first of two, of whom the other has nothing to say
    spec, heard = _spec(dataset, tmp_path), list[dict[str, Any]]()
    taken = _killed_at_its_second_report(spec)
    fine_tune(spec, _Scores(), heard.append)
    assert [report["epoch"] for report in heard] == [0, 1, 2]
    assert heard[0] == plain(taken)


def test_a_trial_whose_end_nobody_heard_does_no_more_than_its_last_epoch_again(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    """A group's last report is on its way for seconds, in which its trial's own process may die."""
    spec, heard = _spec(dataset, tmp_path), list[dict[str, Any]]()
    fine_tune(spec, _Scores(), lambda report: None)
    fine_tune(spec, _Scores(), heard.append)
    assert [(report["epoch"], report["final"]) for report in heard] == [(2, True)]


def test_a_trial_goes_on_from_what_the_version_before_kept(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Format 2 is of an epoch's end, and of reports that were heard."""
    spec, heard = _spec(dataset, tmp_path), list[dict[str, Any]]()
    _killed_at_its_second_report(spec)
    (file,) = (spec.folder / FOLDER).glob(f"*/{FACTS}")
    facts = json.loads(file.read_text())
    assert (facts.pop("format"), facts.pop("under_way"), facts.pop("untold")) == (3, None, {})
    file.write_text(json.dumps({"format": 2, **facts}))
    fine_tune(spec, _Scores(), heard.append)
    assert [report["epoch"] for report in heard] == [1, 2]
