"""A whole sweep, small: everything that a run directory promises, and what can be done with it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import ray
from click.testing import Result
from diffusers import StableDiffusionPipeline
from mlflow import MlflowClient
from optuna import Trial
from patience import until
from PIL import Image
from ray import cloudpickle
from rich.console import Console
from safetensors.torch import load_file
from small_sweep import invoke, sweep_of

from analysis.report import __main__ as report
from search_spaces import SEARCH_SPACES
from sweep import export, generate
from sweep.config import ConfigError, SearchConfig, SweepConfig
from sweep.engine import run_sweep
from sweep.records.tracking import Tracker, TrackingListener
from sweep.scoring import actors
from sweep.scoring.actors import ActorEvaluator
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not import test modules
OBJECTIVES = {"fid_mini": 1, "vendi_mini": -1, "trainable_parameters": 1, "epoch_s": 1}
"""Names, and the sign that makes less of it better."""


def printed(result: Result, name: str) -> list[str]:
    """A command that a sweep printed, as a shell takes it that it is pasted into."""
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
    return shlex.split(line)[1:]


def test_a_sweep_ends_well_and_says_what_to_do_next(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.exit_code == 0, result.output
    knee = json.loads((out / "pareto.json").read_text())["knee"]
    assert "Pareto front:" in result.stdout and ("(knee)" in result.stdout) == (knee is not None)
    assert ("No knee is proposed: no trial" in result.stdout) == (
        knee is None
    )  # so short a training may not beat the base
    assert printed(result, "Report") == [str(out / "report.html")]
    assert printed(result, "Compare")[:3] == ["mlflow", "ui", "--backend-store-uri"]
    pick = "knee" if knee else "best:fid_mini"
    assert printed(result, "Export")[:7] == ["python", "-m", "sweep.export", "--run", str(out), "--pick", pick]
    waited = pd.read_parquet(out / "results.parquet")["evaluation_s"]
    assert (waited > 0).all() and f"Trials waited {waited.sum():.0f} s for evaluations: " in result.stdout


def test_the_run_directory_holds_what_is_promised(out: Path, trials: pd.DataFrame) -> None:
    files = ("config.json", "provenance.json", "trials.parquet", "results.parquet", "pareto.json", "report.html")
    for name in (*files, "mlflow.db", "pareto.png", "baseline.png", "reference.png"):
        assert (out / name).stat().st_size > 0, name
    for trial_id in trials["trial_id"]:
        folder = out / "trials" / trial_id
        assert {"adapter.json", "adapter.safetensors"} == {file.name for file in (folder / "adapter").iterdir()}
        assert Image.open(folder / "samples.png").size[0] >= 4 * 64
    assert {"dataset", "features", "moments", "states"} <= {folder.name for folder in (out / "cache").iterdir()}
    left = [file for file in (out / "cache").rglob("*") if file.name.endswith((".partial", ".tmp"))]
    assert left == []


def test_the_tables_have_every_trial_and_report(out: Path, trials: pd.DataFrame) -> None:
    assert sorted(trials["strategy"]) == ["bitfit", "dora", "lora", "unet"]
    assert set(trials["status"]) == {"completed"}
    assert np.isfinite(trials[[*OBJECTIVES, "images_per_s", "peak_memory_gib", "param/lr"]]).all(axis=None)
    assert trials["trainable_parameters"].nunique() == 4
    results = pd.read_parquet(out / "results.parquet")
    assert results.groupby("trial_id")["epoch"].apply(list).tolist() == [[0, 1]] * 4
    last, early = (results.set_index("epoch")[name] for name in ("fid_mini", "early_kid_mini"))
    assert last.loc[0].isna().all() and last.loc[1].notna().all()
    assert early.loc[0].notna().all() and early.loc[1].isna().all()  # never in one column with the last
    counts = results.set_index("epoch")[["early_num_generated", "early_num_steps", "num_generated"]]
    assert (counts.loc[0].iloc[:, :2] == [12, 1]).all(axis=None) and (counts.loc[1, "num_generated"] > 12).all()


def test_the_report_says_what_the_early_evaluations_are_worth(out: Path) -> None:
    assert (
        "early KID (mini) after epoch 1: too few trials to tell (4, at least 5)." in (out / "report.html").read_text()
    )
    printed = invoke(report.main, "--run", str(out))
    assert printed.exit_code == 0, printed.output
    assert "epoch 1: early KID (mini) with the last FID (mini) over 4 trials: no rank correlation." in printed.stdout


def test_the_front_is_what_no_trial_beats(out: Path, trials: pd.DataFrame) -> None:
    costs = {row["trial_id"]: [sign * row[name] for name, sign in OBJECTIVES.items()] for _, row in trials.iterrows()}

    def beats(row: list[float], other: list[float]) -> bool:
        return all(a <= b for a, b in zip(row, other, strict=True)) and row != other

    base = json.loads((out / "baseline.json").read_text())
    rivals = [*costs.values(), [base["fid_mini"], -base["vendi_mini"], 0.0, 0.0]]
    expected = {name for name, cost in costs.items() if not any(beats(other, cost) for other in rivals)}
    front = json.loads((out / "pareto.json").read_text())
    assert {point["trial_id"] for point in front["points"]} == expected == set(trials[trials["pareto"]]["trial_id"])
    knee = [front["knee"]] if front["knee"] else []
    assert [point["trial_id"] for point in front["points"] if point["knee"]] == knee
    assert trials[trials["knee"]]["trial_id"].tolist() == knee
    assert set(front["probabilities"]) == set(trials["trial_id"])
    assert trials.set_index("trial_id")["front_probability"].between(0, 1).all()


def test_features_of_the_reference_and_of_each_model_are_extracted_once(out: Path) -> None:
    reference, base, of_trials, of_their_rungs = 1, 1, 4, 4
    assert len(list((out / "cache" / "features").glob("*.arrow"))) == reference + base + of_trials + of_their_rungs
    assert [len(list((out / "cache" / name).rglob("*.arrow"))) for name in ("moments", "states")] == [1, 1]


def test_mlflow_has_a_parent_and_a_tagged_child_for_each_trial(
    finished: tuple[Path, Result], trials: pd.DataFrame
) -> None:
    client = MlflowClient(printed(finished[1], "Compare")[-1])
    experiments = [experiment.experiment_id for experiment in client.search_experiments() if experiment.name == "demo"]
    runs = client.search_runs(experiments)
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = {run.data.tags["trial_id"]: run for run in runs if run is not parent}
    assert children.keys() == set(trials["trial_id"])
    for row in trials.to_dict("records"):
        child = children[row["trial_id"]]
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags.get("pareto") == ("true" if row["pareto"] else None)
        assert child.data.tags.get("knee") == ("true" if row["knee"] else None)
        assert child.data.metrics["fid_mini"] == row["fid_mini"]
        assert child.data.metrics["early_kid_mini"] == row["early_kid_mini"]
        assert child.data.params["lr"] == str(row["param/lr"])
        kept = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert {"samples.png", "adapter"} <= kept
    assert {"pareto.png", "report.html"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert parent.info.status == "FINISHED"
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_a_trials_ranks_are_drawn_and_logged(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "a"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter.json").write_text("{}")
    Image.new("L", (8, 8)).save(folder / "samples.png")
    ranks = {"layers": ["unet.mid_block.attentions.0.proj_in"], "steps": [0, 41], "ranks": [[1], [2]]}
    (folder / "ranks.json").write_text(json.dumps(ranks))
    tracker = Tracker.start(SweepConfig(), tmp_path)
    listener = TrackingListener(tracker, tmp_path)
    choice = {"strategy": {"name": "selora"}, "lr": 1e-3, "batch_size": 4}
    listener.on_start(Suggestion(trial_id="a", number=0, choice=choice))
    listener.on_report("a", {"epoch": 0, "mean_rank": 1.5})
    listener.on_end("a", TrialEnd.completed())
    tracker.abort()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (child,) = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], "tags.trial_id = 'a'"
    )
    kept = {file.path for file in client.list_artifacts(child.info.run_id)}
    assert kept == {"samples.png", "images", "adapter", "ranks.json", "ranks.png"}
    assert child.data.metrics["mean_rank"] == 1.5
    assert Image.open(folder / "ranks.png").format == "PNG"
    mlflow.set_tracking_uri(None)


def test_what_is_proposed_is_exported_and_generates(
    finished: tuple[Path, Result], trials: pd.DataFrame, tmp_path: Path
) -> None:
    out, result = finished
    pick = printed(result, "Export")[6]
    exported = invoke(
        export.main, "--run", str(out), "--pick", pick, "--format", "pipeline", "--to", str(tmp_path / "pipeline")
    )
    assert exported.exit_code == 0, exported.output
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", safety_checker=None)
    assert type(pipeline.unet).__name__ == "UNet2DConditionModel"
    best = trials.loc[trials["fid_mini"].idxmin(), "trial_id"]
    adapter = out / "trials" / (json.loads((out / "pareto.json").read_text())["knee"] or best) / "adapter"
    made = invoke(
        generate.main,
        "--adapter",
        str(adapter),
        "--prompt",
        "Chest X-ray of a subject with edema",
        "--num-images",
        "2",
        "--seed",
        "1",
        "--steps",
        "2",
        "--to",
        str(tmp_path / "images"),
    )
    assert made.exit_code == 0, made.output
    films = [np.asarray(Image.open(tmp_path / "images" / name)) for name in ("0000.png", "0001.png")]
    assert not np.array_equal(*films)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "lora",
            {"rnak": 4},
            "`search.strategies` has lora: `hyperparameter of lora` must be a known name, but got 'rnak'",
        ),
        (
            "unet+text_encoder",
            {"text_encoder.lr_ratio": 0},
            "`text_encoder.lr_ratio` must be a positive number, but got 0",
        ),
    ],
)
def test_a_wrong_fixed_hyperparameter_is_refused_before_anything_starts(
    name: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = SweepConfig(search=SearchConfig(strategies=(name,), hyperparameters={name: values}))
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_sweep(config, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run").exists()


def cuttable(trial: Trial, strategies: tuple[str, ...] = ("dylora",)) -> dict[str, Any]:
    """One training that yields ranks 1, 2 and 4."""
    lr = trial.suggest_float("lr", 1e-3, 1e-3)
    return {"strategy": {"name": "dylora", "rank": 4, "alpha": 8}, "lr": lr, "batch_size": 16}


@pytest.fixture(scope="module")
def cut(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """The directory of a sweep of one trial with two cuts whose base model cannot be scored, and what it printed."""
    out, broken = tmp_path_factory.mktemp("cut") / "run", ray.remote(num_cpus=0)(lambda: int("no score"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEARCH_SPACES, "cuttable", cuttable)
        patch.setattr(ActorEvaluator, "score_base", lambda self, out: (self.actors[0], broken.remote()))
        settings = ("search.space=cuttable", "search.strategies=[dylora]", "evaluation.images_per_condition=2")
        yield out, sweep_of(out, 1, *settings)


def test_each_rank_of_one_training_is_a_point_of_its_own(cut: tuple[Path, Result]) -> None:
    out, result = cut
    assert result.exit_code == 0, result.output
    rows = pd.read_parquet(out / "trials.parquet").set_index("param/rank").sort_index()
    whole = rows.loc[4, "trial_id"]
    assert rows["trial_id"].tolist() == [f"{whole}-rank1", f"{whole}-rank2", whole]
    assert rows["cut_of"].fillna("").tolist() == [whole, whole, ""] and set(rows["status"]) == {"completed"}
    assert (rows["trainable_parameters"] * 4 == rows.loc[4, "trainable_parameters"] * rows.index).all()
    assert rows["epoch_s"].nunique() == 1 and rows["fid_mini"].nunique() == 3
    front = json.loads((out / "pareto.json").read_text())
    assert {point["trial_id"] for point in front["points"]} == set(rows[rows["pareto"]]["trial_id"])
    assert rows.loc[1, "pareto"]  # the fewest parameters
    for trial_id in rows["trial_id"]:
        assert (out / "trials" / trial_id / "samples.png").is_file()
    assert "of 1 completed trials and 2 adapters cut from them" in result.stdout
    assert f"{whole}-rank2" in result.stdout
    assert "<b>2</b><span>adapters cut from them</span>" in (out / "report.html").read_text()


def test_features_of_each_cut_are_extracted_once(cut: tuple[Path, Result]) -> None:
    reference, at_the_rung, whole, cuts = 1, 1, 1, 2
    assert len(list((cut[0] / "cache" / "features").glob("*.arrow"))) == reference + at_the_rung + whole + cuts


def test_mlflow_has_a_tagged_child_for_each_cut(cut: tuple[Path, Result]) -> None:
    client = MlflowClient(f"sqlite:///{cut[0] / 'mlflow.db'}")
    runs = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments() if experiment.name == "demo"]
    )
    children = {run.data.params["rank"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert children.keys() == {"1", "2", "4"}
    whole = children["4"].data.tags["trial_id"]
    for rank in ("1", "2"):
        assert children[rank].data.tags["cut_of"] == whole
        assert children[rank].info.status == "FINISHED"
        assert {"samples.png", "adapter"} <= {file.path for file in client.list_artifacts(children[rank].info.run_id)}
    assert "cut_of" not in children["4"].data.tags
    mlflow.set_tracking_uri(None)


def test_a_cut_is_exported_like_a_trial(cut: tuple[Path, Result], tmp_path: Path) -> None:
    trials = pd.read_parquet(cut[0] / "trials.parquet").set_index("param/rank")
    pick = f"trial:{trials.loc[2, 'trial_id']}"
    exported = invoke(
        export.main, "--run", str(cut[0]), "--pick", pick, "--format", "diffusers", "--to", str(tmp_path / "lora")
    )
    assert exported.exit_code == 0, exported.output
    tensors = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {2}
    assert sum(tensor.numel() for tensor in tensors.values()) == trials.loc[2, "trainable_parameters"]


@dataclass
class QuickScorer:
    """Stands in for the evaluation actor of sweeps in which no adapter is scored: its process has nothing to load."""

    spec: object

    def prepare(self, reference_sheet: Path) -> None:
        reference_sheet.touch()

    def score(self, adapter: Path | None, samples: Path, share_done: float = 1.0) -> dict[str, float]:
        assert adapter is None, "only the base is scored"
        return {}


class DistantScorer(QuickScorer):
    def prepare(self, reference_sheet: Path) -> None:
        """Its files do not arrive."""


def doomed(trial: Trial, strategies: tuple[str, ...] = ("bitfit",)) -> dict[str, Any]:
    """A learning rate that no loss survives."""
    return {"strategy": {"name": "bitfit"}, "lr": trial.suggest_float("lr", 1e30, 1e30), "batch_size": 16}


def test_a_sweep_of_failures_ends_with_their_reason(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SEARCH_SPACES, "doomed", doomed)
    monkeypatch.setattr(actors, "AdapterScorer", QuickScorer)
    result = sweep_of(tmp_path / "run", 1, "search.space=doomed", "search.strategies=[bitfit]")
    assert result.exit_code == 1
    assert "`sweep` must complete at least one trial, but got 1 without result: DivergedError: `loss`" in result.stderr
    trials = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert trials["status"].tolist() == ["failed"]
    assert json.loads((tmp_path / "run" / "pareto.json").read_text())["points"] == []


def test_a_sweep_that_broke_off_holds_nothing_of_the_cluster(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while its exception, whose frames know the evaluation actors, is kept."""
    monkeypatch.setattr(actors, "AdapterScorer", DistantScorer)
    config = SweepConfig.model_validate(
        {"data": {"num_patients": 22, "seed": 12}, "evaluation": {"images_per_condition": 2}}
    )
    with pytest.raises(ConfigError, match="`--out` must be on storage that every machine") as kept:
        run_sweep(config, tmp_path / "run", Console(quiet=True))
    until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    assert kept.value.__traceback__ is not None


def test_a_base_model_that_cannot_be_scored_costs_its_row_and_no_more(cut: tuple[Path, Result]) -> None:
    out, result = cut
    assert result.exit_code == 0, result.output
    assert "the un-adapted base model has no scores: invalid literal for int()" in result.stdout
    assert set(pd.read_parquet(out / "trials.parquet")["status"]) == {"completed"}
    page = (out / "report.html").read_text()
    assert "Pareto front" in page and "the model before any adaptation" not in page


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A run directory whose cache is on a disk with room for the phantom's films and little else."""
    cache = tmp_path / "run" / "cache"
    cache.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(cache)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield cache.parent
    subprocess.run(["umount", "-l", str(cache)], check=True)


def test_a_disk_that_fills_up_during_a_trial_is_told(ray_cluster: None, small_disk: Path) -> None:
    """The disk is at fault: the trial stays open, to go on once there is room."""
    settings = ("evaluation.images_per_condition=2", "search.strategies=[bitfit]", "compute.max_retries=0")
    result = sweep_of(small_disk, 1, *settings)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error `disk` must have room") and str(small_disk) in last and "--resume" in last
    assert not [file for file in (small_disk / "cache").rglob("*") if file.name.endswith((".partial", ".tmp"))]
    assert len(list((small_disk / "cache" / "dataset").glob("*.arrow"))) == 3
    assert pd.read_parquet(small_disk / "trials.parquet")["status"].tolist() == ["running"]
