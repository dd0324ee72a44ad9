"""A sweep that goes on: after it has ended, and with more trials. `tests/chaos` has those that have died."""

from __future__ import annotations

import re
import shutil
import zlib
from io import StringIO
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console
from small_sweep import invoke, sweep_of

from sweep import run
from sweep.config import SweepConfig
from sweep.engine import _say_what_is_there
from sweep.records.events import Resumed, read_events
from sweep.records.journal import Journal
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion
from trainables.checkpoints import Checkpoint, read_checkpoint, write_checkpoint

CHOICE = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}


def test_the_same_command_a_second_time_does_nothing_over_and_tells_the_result(out: Path) -> None:
    before = (out / "trials.parquet").read_bytes()
    again = sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha")
    assert again.exit_code == 0 and "trials have ended" in again.stdout and "Pareto front" in again.stdout
    assert (out / "trials.parquet").read_bytes() == before


@pytest.mark.slow
def test_the_plan_of_a_sweep_that_goes_on_is_of_what_is_left(tmp_path: Path) -> None:
    """Of one strategy: what each costs is counted on its shapes."""
    config = {"search": {"strategies": ["bitfit"], "num_trials": 4}, "data": {"num_patients": 60}}
    journal = Journal.open(tmp_path, SweepConfig.model_validate(config), {})
    scores = {"fid_mini": 2.0, "vendi_mini": 3.0, "trainable_parameters": 4, "epoch_s": 1.0}
    for name in "abcd":
        journal.on_start(Suggestion(trial_id=name, number=ord(name), choice=CHOICE))
        journal.on_report(name, {"epoch": 0, "loss": 0.5, "final": True, **scores})
        journal.on_end(name, TrialEnd.completed())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for num_trials, left in ((4, 0), (6, 2)):
        options = ("--num-trials", str(num_trials), "--dry-run", "--tflops", "1")
        said = invoke(run.main, "--resume", str(tmp_path), *options).stderr
        assert f"4 have ended, and what follows is of the other {left}" in said
        assert ("Operations" in said) == (left > 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_report_that_cannot_be_written_costs_a_sweep_nothing_else(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "run")
    (copy / "report.html").unlink()
    (copy / "report.html").mkdir()
    again = invoke(run.main, "--resume", str(copy))
    assert again.exit_code == 0 and "Pareto front" in again.stdout, again.output
    assert "note `report` must be written, but got IsADirectoryError" in again.stdout
    assert f"python -m analysis.report --run {copy} writes it." in again.stdout
    ends = statuses(copy, pd.read_parquet(copy / "trials.parquet").set_index("trial_id"))
    assert set(ends.values()) <= {"FINISHED", "KILLED"}


def test_another_configuration_is_refused_in_the_same_out(out: Path) -> None:
    before = (out / "trials.parquet").read_bytes()
    again = sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha", "training.ema_decay=0.5")
    assert again.exit_code == 1 and "`run directory` must hold no run, or one of the same sweep" in again.stderr
    assert "training.ema_decay was None and is 0.5" in again.stderr
    assert (out / "trials.parquet").read_bytes() == before


@pytest.mark.parametrize("has_begun", [True, False])
def test_it_is_said_what_was_torn_and_that_other_code_began_the_sweep(tmp_path: Path, has_begun: bool) -> None:
    """Also where the torn record was the first; the commit that goes on is in the log."""
    then, now = ({"git_commit": commit, "data_fingerprint": "d", "base": "b"} for commit in ("then", "now"))
    journal = Journal.open(tmp_path, SweepConfig(), then)
    if has_begun:
        journal.on_start(Suggestion(trial_id="a", number=0, choice=CHOICE))
    with (tmp_path / "events.log").open("ab") as log:
        log.write(b"0000")
    said = StringIO()
    _say_what_is_there(Journal.open(tmp_path, SweepConfig(), now), now, Console(file=said, width=200))
    assert "note a record of 4 bytes was broken off; it was set aside." in said.getvalue()
    assert ("other code began this sweep: commit then, and now now;" in said.getvalue()) == has_begun
    *_, resumed = read_events(tmp_path / "events.log")
    assert isinstance(resumed, Resumed) and resumed.provenance == now


def edited(out: Path) -> None:
    """A run as if its trials had a distance at their first rung that no other reaches, and lost its tables.

    A record of its log is torn.
    """
    lines = (out / "events.log").read_bytes().splitlines(keepends=True)
    whole = [with_first_rung(line, fid_mini=1.0) for line in lines]
    (out / "events.log").write_bytes(b"".join(whole) + lines[-1][:-5])
    for lost in ("trials.parquet", "results.parquet", "baseline.json"):
        (out / lost).unlink(missing_ok=True)


def with_first_rung(line: bytes, *, fid_mini: float) -> bytes:
    """A record of the event log with another early distance, if it has one."""
    payload = re.sub(rb'"early_fid_mini": [^,}]+', b'"early_fid_mini": %g' % fid_mini, line[18:-1])
    return b"%08x %08x %s\n" % (len(payload), zlib.crc32(payload), payload)


def assert_stopped_at_their_rung(stopped: pd.DataFrame, printed: str) -> None:
    """They are compared with four that had reached the rung, of which two cannot be equalled."""
    assert set(stopped["rung"]) == {0} and set(stopped["epoch"]) == {0}
    assert stopped["early_fid_mini"].notna().all() and stopped["early_vendi_mini_se"].notna().all()
    assert stopped["fid_mini"].isna().all() and not stopped["pareto"].any()
    for reason in stopped["reason"]:
        assert reason.startswith("after epoch 1 it ranks") and reason in printed


def statuses(out: Path, rows: pd.DataFrame) -> dict[str, str]:
    """How the runs of MLflow have ended, of which there is one a trial and the sweep's own, which has no name here."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(run.data.tags.get("trial_id", "") for run in runs) == sorted(["", *rows.index])
    mlflow.set_tracking_uri(None)
    return {run.data.tags.get("trial_id", ""): run.info.status for run in runs}


def test_a_sweep_that_goes_on_to_more_trials_knows_what_it_found(ray_cluster: None, out: Path, tmp_path: Path) -> None:
    """Its log alone tells it; `tests/chaos` has sweeps that are broken."""
    run_folder = shutil.copytree(out, tmp_path / "run")
    ended = pd.read_parquet(run_folder / "trials.parquet").set_index("trial_id")
    edited(run_folder)
    adapters = [file for name in ended.index for file in (run_folder / "trials" / name / "adapter").iterdir()]
    kept = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in adapters}
    records = (run_folder / "events.log").read_bytes().rpartition(b"\n")[0]
    again = invoke(run.main, "--resume", str(run_folder), "--num-trials", "6")
    assert again.exit_code == 0 and "4 trials have ended" in again.stdout, again.output
    assert kept == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in adapters}
    assert (run_folder / "events.log").read_bytes().startswith(records)
    rows = pd.read_parquet(run_folder / "trials.parquet").set_index("trial_id")
    assert list(rows.index[:4]) == list(ended.index) and len(rows) == 6
    assert_they_are_what_they_were(rows.loc[ended.index], ended)
    assert set(rows["status"][:4]) == {"completed"}  # the first of their strategies
    assert set(rows["status"][4:]) == {"stopped"}
    assert_stopped_at_their_rung(rows[4:], again.stdout)
    ends = statuses(run_folder, rows)
    assert ends == {
        "": "FINISHED",
        **dict.fromkeys(rows.index[:4], "FINISHED"),
        **dict.fromkeys(rows.index[4:], "KILLED"),
    }
    name = rows.index[-1]
    without_end(run_folder, name)
    write_checkpoint(run_folder / "trials" / name, Checkpoint(tensors={"weights/a": torch.ones(1)}, facts={}))
    once_more = invoke(run.main, "--resume", str(run_folder))
    assert once_more.exit_code == 0 and "5 trials have ended" in once_more.stdout, once_more.output
    assert pd.read_parquet(run_folder / "trials.parquet").set_index("trial_id").loc[name, "status"] == "stopped"
    assert read_checkpoint(run_folder / "trials" / name) is None


def without_end(out: Path, trial_id: str) -> None:
    """The log as a break leaves it that comes between a trial's last report and the note of its end."""
    lines = (out / "events.log").read_bytes().splitlines(keepends=True)
    ends = [line for line in lines if b'"end"' in line and trial_id.encode() in line]
    assert len(ends) == 1
    (out / "events.log").write_bytes(b"".join(line for line in lines if line not in ends))


def assert_they_are_what_they_were(rows: pd.DataFrame, ended: pd.DataFrame) -> None:
    """With their seconds, as none was run again; places on the front depend on the others: on their seconds, and who was stopped."""
    assert (rows["early_fid_mini"] == 1.0).all()
    places = ["pareto", "knee", "front_probability", "reason", "early_fid_mini"]
    columns = [name for name in ended if name not in places]
    assert {"epoch_s", "fid_mini", "status"} <= set(columns)
    pd.testing.assert_frame_equal(
        rows[columns],
        ended[columns],
        check_dtype=False,  # stopped trials have no counts, so that a column of counts is of floats
    )
