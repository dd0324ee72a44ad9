"""A sweep that goes on: after it has ended, with more trials, after it has died."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from small_sweep import invoke, sweep_of

from sweep import run


def test_the_same_command_a_second_time_does_nothing_over_and_tells_the_result(out: Path) -> None:
    before = (out / "trials.parquet").read_bytes()
    again = sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha")
    assert again.exit_code == 0 and "trials have ended" in again.stdout and "Pareto front" in again.stdout
    assert (out / "trials.parquet").read_bytes() == before


def test_another_configuration_is_refused_in_the_same_out(out: Path) -> None:
    before = (out / "trials.parquet").read_bytes()
    again = sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha", "training.ema_decay=0.5")
    assert again.exit_code == 1 and "`run directory` must hold no run, or one of the same sweep" in again.stderr
    assert "training.ema_decay was None and is 0.5" in again.stderr
    assert (out / "trials.parquet").read_bytes() == before


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
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert sorted(run.data.tags.get("trial_id", "") for run in runs) == sorted(["", *rows.index])
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    mlflow.set_tracking_uri(None)
