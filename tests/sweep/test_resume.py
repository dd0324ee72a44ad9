"""A sweep that goes on: after it has ended, with more trials, after it has died."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zlib
from io import StringIO
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import warm_python
from mlflow import MlflowClient
from rich.console import Console
from small_sweep import SETTINGS, invoke, sweep_of

from sweep import run
from sweep.config import SweepConfig
from sweep.engine import _say_what_is_there
from sweep.records.events import Resumed, read_events
from sweep.records.journal import Journal
from sweep.trials.suggestions import Suggestion

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_command_a_second_time_does_nothing_over_and_tells_the_result(out: Path) -> None:
    before = (out / "trials.parquet").read_bytes()
    again = sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha")
    assert again.exit_code == 0 and "trials have ended" in again.stdout and "Pareto front" in again.stdout
    assert (out / "trials.parquet").read_bytes() == before


def test_the_plan_of_a_sweep_that_goes_on_is_of_what_is_left(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said = invoke(run.main, "--resume", str(out), "--dry-run", "--tflops", "1").stderr
    assert "4 have ended, and what follows is of the other 0" in said and "Operations" not in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_report_that_cannot_be_written_costs_a_sweep_nothing_else(out: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(out, tmp_path / "run")
    (copy / "report.html").unlink()
    (copy / "report.html").mkdir()
    again = invoke(run.main, "--resume", str(copy))
    assert again.exit_code == 0 and "Pareto front" in again.stdout, again.output
    assert "note `report` must be written, but got IsADirectoryError" in again.stdout
    assert f"python -m analysis.report --run {copy} writes it." in again.stdout
    assert statuses(copy, pd.read_parquet(copy / "trials.parquet").set_index("trial_id")) <= {"FINISHED", "KILLED"}


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
        choice = {"strategy": {"name": "bitfit"}, "lr": 1e-3, "batch_size": 9}
        journal.on_start(Suggestion(trial_id="a", number=0, choice=choice))
    with (tmp_path / "events.log").open("ab") as log:
        log.write(b"0000")
    said = StringIO()
    _say_what_is_there(Journal.open(tmp_path, SweepConfig(), now), now, Console(file=said, width=200))
    assert "note a record of 4 bytes was broken off; it was set aside." in said.getvalue()
    assert ("other code began this sweep: commit then, and now now;" in said.getvalue()) == has_begun
    *_, resumed = read_events(tmp_path / "events.log")
    assert isinstance(resumed, Resumed) and resumed.provenance == now


def died(out: Path, to: Path, after: int) -> pd.DataFrame:
    """A copy of a run as a sweep leaves it that was killed while trials ran: records up to some trials' ends, and a torn one.

    At their first rung its trials have a distance that no other reaches.

    Returns:
        The rows of the trials that had ended.
    """
    shutil.copytree(out, to)
    lines = (to / "events.log").read_bytes().splitlines(keepends=True)
    ends = [place for place, line in enumerate(lines) if b'"event": "end"' in line]
    kept = ends[after - 1] + 3
    whole = [with_first_rung(line, fid_mini=1.0) for line in lines[:kept]]
    (to / "events.log").write_bytes(b"".join(whole) + lines[kept][:-5])
    for lost in ("trials.parquet", "results.parquet", "pareto.json", "report.html", "baseline.json"):
        (to / lost).unlink()
    ended = pd.read_parquet(out / "trials.parquet")
    return ended[ended["trial_id"].isin([json.loads(lines[place][18:])["trial_id"] for place in ends[:after]])]


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


def test_a_sweep_that_died_goes_on_to_the_same_trials(
    ray_cluster: None, out: Path, trials: pd.DataFrame, tmp_path: Path
) -> None:
    ended = died(out, tmp_path / "run", after=2)
    again = invoke(run.main, "--resume", str(tmp_path / "run"), "--num-trials", "6")
    assert again.exit_code == 0, again.output
    assert "2 trials have ended" in again.stdout
    rows = pd.read_parquet(tmp_path / "run" / "trials.parquet").set_index("trial_id")
    assert list(rows.index[:4]) == trials["trial_id"].tolist() and len(rows) == 6
    assert set(rows["status"][:4]) == {"completed"}  # the first of their strategies
    assert set(rows["status"][4:]) == {"stopped"}
    assert_stopped_at_their_rung(rows[4:], again.stdout)
    places = [
        "pareto",
        "knee",
        "front_probability",
        "reason",
    ]  # they depend on the others: on their seconds, and whether any was stopped
    whole = trials.set_index("trial_id")
    assert (rows.loc[ended["trial_id"], "early_fid_mini"] == 1.0).all()
    places.append("early_fid_mini")
    pd.testing.assert_frame_equal(
        rows.loc[ended["trial_id"]].drop(columns=places),
        whole.loc[ended["trial_id"]].drop(columns=places),
        check_dtype=False,  # stopped trials have no counts, so that a column of counts is of floats
    )
    same = ["loss", "fid_mini", "vendi_mini", "trainable_parameters", "param/lr"]
    pd.testing.assert_frame_equal(rows.loc[whole.index, same], whole[same])
    assert statuses(tmp_path / "run", rows) == {"FINISHED", "KILLED"}


def statuses(out: Path, rows: pd.DataFrame) -> set[str]:
    """How the runs of MLflow have ended, of which there is one a trial and the sweep's own."""
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(run.data.tags.get("trial_id", "") for run in runs) == sorted(["", *rows.index])
    mlflow.set_tracking_uri(None)
    return {run.info.status for run in runs}


def killed_at_a_table(out: Path, address: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which is killed when the table of the second ended trial has just been written."""
    settings = (*SETTINGS, "training.evaluate_every_epochs=1", "search.scheduler=asha")
    faults = {
        "CHAOS_FAULT": "rename:2",
        "CHAOS_FILE": "trials.parquet",
        "CHAOS_OUT": str(out),
        "CHAOS_ONCE": f"{out}.once",
    }
    path = os.pathsep.join([str(ROOT / "tests" / "chaos" / "injected"), str(ROOT)])
    command = [*warm_python.command(), "-m", "sweep.run", "--out", str(out), "--num-trials", "4"]
    return subprocess.run(
        [*command, *(text for setting in settings for text in ("--set", setting))],
        cwd=ROOT,
        env={**os.environ, **faults, "PYTHONPATH": path, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_sweep_that_is_killed_goes_on_to_the_numbers_of_one_that_is_not(
    ray_cluster: None, ray_address: str, trials: pd.DataFrame, tmp_path: Path
) -> None:
    """Nothing in it comes to close anything; `tests/chaos/drive.py` does so in more ways and checks more."""
    out = tmp_path / "run"
    killed = killed_at_a_table(out, ray_address)
    assert killed.returncode == 137, killed.stderr
    assert f"Go on with: python -m sweep.run --resume {out}" in " ".join(killed.stderr.split())
    ended = pd.read_parquet(out / "trials.parquet").set_index("trial_id").query("status == 'completed'")
    assert len(ended) == 2
    again = invoke(run.main, "--resume", str(out))
    assert again.exit_code == 0 and "2 trials have ended" in again.stdout, again.output
    rows = pd.read_parquet(out / "trials.parquet").set_index("trial_id")
    whole = trials.set_index("trial_id")
    same = ["status", "loss", "fid_mini", "vendi_mini", "trainable_parameters", "param/lr"]
    pd.testing.assert_frame_equal(rows[same], whole[same])
    pd.testing.assert_series_equal(rows.loc[ended.index, "epoch_s"], ended["epoch_s"])  # they were not run again
    assert statuses(out, rows) == {"FINISHED"}
