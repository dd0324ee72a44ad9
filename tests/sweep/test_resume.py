"""A sweep that goes on: after it has ended, with more trials, after it has died."""

from __future__ import annotations

import json
import shutil
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

    Returns:
        The rows of the trials that had ended.
    """
    shutil.copytree(out, to)
    lines = (to / "events.log").read_bytes().splitlines(keepends=True)
    ends = [place for place, line in enumerate(lines) if b'"event": "end"' in line]
    kept = ends[after - 1] + 3
    (to / "events.log").write_bytes(b"".join(lines[:kept]) + lines[kept][:-5])
    for lost in ("trials.parquet", "results.parquet", "pareto.json", "report.html", "baseline.json"):
        (to / lost).unlink()
    ended = pd.read_parquet(out / "trials.parquet")
    return ended[ended["trial_id"].isin([json.loads(lines[place][18:])["trial_id"] for place in ends[:after]])]


def assert_stopped_at_their_rung(stopped: pd.DataFrame, printed: str) -> None:
    """Of the two further trials one at least is not the best; both are compared with four that had reached the rung."""
    assert len(stopped) and set(stopped["rung"]) == {0} and set(stopped["epoch"]) == {0}
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
    assert_stopped_at_their_rung(rows[rows["status"] == "stopped"], again.stdout)
    places = ["pareto", "knee", "reason"]  # they depend on the others: on their seconds, and whether any was stopped
    whole = trials.set_index("trial_id")
    pd.testing.assert_frame_equal(
        rows.loc[ended["trial_id"]].drop(columns=places), whole.loc[ended["trial_id"]].drop(columns=places)
    )
    same = ["loss", "fid_mini", "vendi_mini", "trainable_parameters", "param/lr"]
    pd.testing.assert_frame_equal(rows.loc[whole.index, same], whole[same])
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert sorted(run.data.tags.get("trial_id", "") for run in runs) == sorted(["", *rows.index])
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    mlflow.set_tracking_uri(None)
