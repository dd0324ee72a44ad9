"""`sweep.export`: the right trial, in a form that loads again, and clear answers to wrong input."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from adapted import adapted
from click.testing import Result
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from typer.testing import CliRunner

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.front.picks import pick_finalists, pick_trial
from analysis.run_folder import RunFolder
from sweep import evaluate, export
from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import load_base, resolve_base
from trainables.exports import Writing
from trainables.exports.files import as_written
from trainables.exports.low_rank_file import LORA_WEIGHTS
from trainables.sampling import generate_batches
from trainables.strategies import load_adapter

TRIALS = pd.DataFrame(
    [
        {
            "trial_id": "a1",
            "status": "completed",
            "strategy": "lora",
            "fid_mini": 3.0,
            "vendi_mini": 2.0,
            "epoch_s": 1.0,
        },
        {
            "trial_id": "b2",
            "status": "completed",
            "strategy": "bitfit",
            "fid_mini": 5.0,
            "vendi_mini": 4.0,
            "epoch_s": 0.5,
        },
        {"trial_id": "c3", "status": "failed", "strategy": "dora", "fid_mini": 1.0, "vendi_mini": 9.0, "epoch_s": 0.1},
        {"trial_id": "d4", "status": "stopped", "strategy": "norm", "fid_mini": 1.0, "vendi_mini": 9.0, "epoch_s": 0.1},
    ]
).assign(
    kid_mini=float("nan"),
    trainable_parameters=[1_500_000, 15_000, 1, 1],
    rung=pd.array([None, None, None, 2], "Int64"),
    **{"fid_mini/Edema": [7.0, 6.0, 1.0, 1.0], "param/lr": 1e-3},
)


def write_adapter(folder: Path, name: str, base: str = "mini", **fields: Any) -> None:
    models, strategy = adapted(name, base=base, spread=0.2, **fields)
    strategy.export(models, folder)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"base": "mini"}))
    TRIALS.to_parquet(folder / "trials.parquet")
    points = tuple(
        FrontPoint(
            trial_id=trial, strategy=name, values={"fid_mini": fid, "vendi_mini": vendi}, params={}, knee=trial == "b2"
        )
        for trial, name, fid, vendi in (("a1", "lora", 3.0, 2.0), ("b2", "bitfit", 5.0, 4.0))
    )
    objectives = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
    Front(objectives=objectives, points=points).write(folder / "pareto.json")
    write_adapter(folder / "trials" / "a1" / "adapter", "lora")
    write_adapter(folder / "trials" / "b2" / "adapter", "bitfit")
    return folder


def invoke(run: Path, to: Path, *options: str) -> Result:
    app = typer.Typer()
    app.command()(export.main)
    return CliRunner().invoke(app, ["--run", str(run), "--to", str(to), *options])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pick", "trial"),
    [
        ("knee", "b2"),
        ("best:fid_mini", "a1"),
        ("best:vendi_mini", "b2"),
        ("best:epoch_s", "b2"),
        ("best:fid_mini/Edema", "b2"),
        ("trial:a1", "a1"),
        ("best:fid", "a1"),
        ("best:fid where epoch_s <= 0.7", "b2"),
        ("best:fid  where  vendi_mini>=4 and epoch_s < 1e2", "b2"),
        ("best:fid WHERE vendi_mini>=4 AND epoch_s < 1e2", "b2"),
        ("best:vendi where fid_mini/Edema > 6.5", "a1"),
        ("best:fid where trainable_parameters <= 2e4 and epoch_s <= 60", "b2"),
        ("nearest:fid=8,trainable_parameters=1e6", "b2"),
        ("nearest:fid=4.4,trainable_parameters=1e6", "a1"),
        ("nearest:fid=4.5,vendi=3.9", "b2"),
        ("nearest:epoch_s=100", "a1"),
    ],
)
def test_a_pick_names_a_completed_trial(run_folder: Path, pick: str, trial: str) -> None:
    assert pick_trial(RunFolder.open(run_folder), pick) == trial


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ("kneee", "must be a known name, but got 'kneee'. Did you mean 'knee'"),
        ("best:", "must be a known name, but got 'best:'"),
        (
            "front",
            "must be a known name, but got 'front'. Choose one of: best:METRIC, knee, nearest:METRIC=VALUE, trial:ID.",
        ),
        (
            "best:fid where epoch_s <= 0.1",
            "must have a trial where epoch_s <= 0.1, but got 2 trials with epoch_s 0.5 to 1",
        ),
        ("best:fid where epoch_s", "must have conditions such as `epoch_s <= 60`, joined by `and`, but got 'epoch_s'"),
        ("best:fid where ", "must have conditions such as `epoch_s <= 60`, joined by `and`, but got ''"),
        ("best:fid where epoch <= 3", "`--pick best:METRIC where METRIC` must be a known name, but got 'epoch'"),
        ("best:fid where epoch_s <= sixty", "`epoch_s` must be compared with a number, but got 'sixty'"),
        ("nearest:fid", "must have values such as `fid=8,epoch_s=60`, but got 'fid'"),
        ("nearest:fid=8,fid_mini=9", "must have one value for each metric, but got fid_mini, fid_mini"),
        ("nearest:fidd=8", "but got 'fidd'. Did you mean 'fid_mini'"),
        ("nearest:fid=inf", "`fid_mini` must be compared with a number, but got 'inf'"),
        ("best:fid_mni", "but got 'fid_mni'. Did you mean 'fid_mini'"),
        ("best:param/lr", "but got 'param/lr'"),
        ("best:kid_mini", "`best:kid_mini` must have a completed trial with that metric, but got none"),
        ("trial:a11", "but got 'a11'. Did you mean 'a1'"),
        ("trial:c3", "`trial:ID` must be a completed trial, but got 'c3', which failed. Pick one of a1, b2"),
        ("trial:d4", "but got 'd4', which was stopped at rung 2. Pick one of a1, b2"),
    ],
)
def test_a_wrong_pick_is_answered(run_folder: Path, tmp_path: Path, pick: str, message: str) -> None:
    result = invoke(run_folder, tmp_path / "out", "--pick", pick)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_finalists_are_picked_once_each_in_the_order_of_the_picks(run_folder: Path) -> None:
    run = RunFolder.open(run_folder)
    assert pick_finalists(run, ["knee", "front", "best:fid_mini", "trial:b2"]) == ["b2", "a1"]
    assert pick_finalists(run, ["front"]) == ["a1", "b2"]
    with pytest.raises(ValueError, match=r"`front` must have a point, but got an empty front"):
        pick_finalists(replace(run, front=replace(run.front, points=())), ["front"])


@pytest.mark.parametrize("pick", ["frnt", "best:", "front:x", "trial:", "knee:1"])
def test_a_wrong_pick_of_finalists_is_answered_with_all_of_theirs(run_folder: Path, pick: str) -> None:
    app = typer.Typer()
    app.command()(evaluate.main)
    result = CliRunner().invoke(app, ["--run", str(run_folder), "--pick", pick])
    assert result.exit_code == 1
    assert f"`--pick` must be a known name, but got '{pick}'." in result.stderr
    assert "best:METRIC, front, knee, nearest:METRIC=VALUE, trial:ID." in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("trial", "strategy"), [("a1", "lora"), ("b2", "bitfit")])
def test_a_pipeline_gives_the_trials_pixels(run_folder: Path, tmp_path: Path, trial: str, strategy: str) -> None:
    result = invoke(run_folder, tmp_path / "out", "--pick", f"trial:{trial}", "--format", "pipeline")
    assert result.exit_code == 0, result.output
    models = load_base("mini")
    assert load_adapter(models, run_folder / "trials" / trial / "adapter").name == strategy
    ours = next(generate_batches(models, ["film"], [1], num_steps=2, guidance_scale=3.0, batch_size=1))
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    generator = torch.Generator().manual_seed(1)
    plain = pipeline("film", num_inference_steps=2, guidance_scale=3.0, generator=generator, output_type="np").images
    np.testing.assert_allclose(plain, ours, atol=1e-4)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["trial_id"] == trial


def test_a_low_rank_trial_exports_for_diffusers_and_says_what_next(run_folder: Path, tmp_path: Path) -> None:
    result = invoke(run_folder, tmp_path / "out", "--pick", "best:fid_mini", "--format", "diffusers")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / LORA_WEIGHTS).is_file()
    assert "load_lora_weights" in result.output


@pytest.mark.slow
def test_films_of_another_side_than_the_bases_are_said(run_folder: Path, tmp_path: Path) -> None:
    """A pipeline brings its side with it; other formats go on a base that has its own."""
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    card = run / "trials" / "a1" / "adapter" / "adapter.json"
    assert json.loads(card.read_text())["resolution_px"] == 64
    card.write_text(json.dumps(json.loads(card.read_text()) | {"resolution_px": 96}))
    outputs = {
        format_: invoke(folder, tmp_path / f"{folder.name}-{format_}", "--pick", "trial:a1", "--format", format_).output
        for folder, format_ in ((run, "diffusers"), (run, "pipeline"), (run_folder, "webui"))
    }
    assert "Its films are of 96 px, not 64: ask for that height and width." in outputs["diffusers"]
    assert "Its films" not in outputs["webui"]
    assert load_base(str(tmp_path / "run-pipeline")).resolution_px == 96


def test_a_strategy_without_low_rank_layers_leaves_nothing_behind(run_folder: Path, tmp_path: Path) -> None:
    result = invoke(run_folder, tmp_path / "out", "--pick", "trial:b2", "--format", "diffusers")
    assert result.exit_code == 1
    assert "must have a low-rank adapter or new tokens, but got an adapter by 'bitfit'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_answered(run_folder: Path, tmp_path: Path) -> None:
    result = invoke(run_folder, tmp_path / "out", "--format", "diffuser")
    assert result.exit_code == 1
    assert "`--format` must be a known name, but got 'diffuser'. Did you mean 'diffusers'" in result.stderr


def test_a_target_that_holds_something_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    result = invoke(run_folder, tmp_path)
    assert result.exit_code == 1
    assert "`to` must be a new or empty folder" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_target_is_filled(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert invoke(run_folder, tmp_path / "out", "--pick", "trial:a1", "--format", "diffusers").exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_base_that_is_not_there_can_be_named_anew(run_folder: Path, tmp_path: Path) -> None:
    result = invoke(run_folder, tmp_path / "out", "--base", str(tmp_path / "gone"))
    assert result.exit_code == 1
    assert "`base` must be" in result.stderr
    assert invoke(run_folder, tmp_path / "out", "--base", "mini").exit_code == 0


def test_a_folder_that_is_no_run_is_answered(tmp_path: Path) -> None:
    result = invoke(tmp_path, tmp_path / "out")
    assert result.exit_code == 1
    assert "`--run` must be the directory of a finished run" in result.stderr


@pytest.mark.slow
def test_half_precision_metadata_and_modes(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # other users read the modules of this checkout
    umask = os.umask(0o027)
    try:
        result = invoke(run_folder, tmp_path / "out", "--pick", "trial:b2", "--format", "webui", "--half")
    finally:
        os.umask(umask)
    assert result.exit_code == 0, result.output
    with safe_open(tmp_path / "out" / "adapter.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        known = json.loads(file.metadata()["radiograph_sweep"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert (known["strategy"], known["trial"], known["run"]) == ("bitfit", "b2", run_folder.name)
    assert known["front"] == "the knee of a front of 2 points: FID (mini) 5 ↓, Vendi score (mini) 4 ↑"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()} == {0o640}


@pytest.mark.slow
@pytest.mark.parametrize(("trial", "format_"), [("e5", "pipeline"), ("f6", "peft"), ("f6", "webui")])
def test_an_export_names_no_folder_of_this_machine(trial: str, format_: str, tmp_path: Path) -> None:
    base, run = tmp_path / "models" / "own-base", tmp_path / "run"
    shutil.copytree(resolve_base("mini"), base)
    write_bert_layout(tmp_path / "models" / "own-bert")
    fields = {"e5": {"encoder": str(tmp_path / "models" / "own-bert")}, "f6": {"rank": 2}}[trial]
    strategy = {"e5": "text_encoder_swap", "f6": "lora"}[trial]
    write_adapter(run / "trials" / trial / "adapter", strategy, base=str(base), **fields)
    (run / "config.json").write_text(json.dumps({"base": str(base)}))
    TRIALS.iloc[:1].assign(trial_id=trial, strategy=strategy).to_parquet(run / "trials.parquet")
    Front(objectives=(Objective("fid_mini", "min"),), points=()).write(run / "pareto.json")
    result = invoke(run, tmp_path / "out", "--pick", f"trial:{trial}", "--format", format_)
    assert result.exit_code == 0, result.output
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert [file.name for file in files if str(tmp_path).encode() in file.read_bytes()] == []
    assert {"own-base": True, "own-bert": trial == "e5"} == {
        name: any(name.encode() in file.read_bytes() for file in files) for name in ("own-base", "own-bert")
    }


def test_a_weight_that_float16_cannot_hold_is_named() -> None:
    with pytest.raises(ValueError, match="`--half` must have weights of at most 65,504, but got 70000"):
        as_written(torch.tensor([1.0, -7e4]), Writing(half=True))
    assert as_written(torch.tensor([1.0, -7e4]), Writing()).dtype == torch.float32


@pytest.mark.parametrize("options", [("--card",), ("--push-to-hub", "owner/films")])
def test_a_trial_that_was_not_evaluated_has_no_card(run_folder: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = invoke(run_folder, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "`--card` must be of a trial with a final evaluation, but got 'b2' without" in " ".join(
        result.stderr.split()
    )
    assert not list(tmp_path.iterdir())
