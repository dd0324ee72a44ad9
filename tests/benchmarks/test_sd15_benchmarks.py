"""The benchmarks at SD 1.5's size, as toys on the CPU, so that they work where there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import grimp
import numpy as np
import pytest
import torch
import warm_python

from benchmarks import gpu_check, sd15, sd15_sampling, sd15_step
from trainables.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("benchmarks", "sweep", "trainables", "search_spaces", "analysis")
MEASURED = ("benchmarks.sd15_step", "benchmarks.sd15_sampling", "benchmarks.sd15_counts", "benchmarks.gpu_check")
ABSENT = ("ray", "mlflow", "optuna", "torchxrayvision")
WITHOUT = """
import importlib, sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

assert not [name for name in sys.modules if name.partition(".")[0] in {absent}]
whole = PathFinder.find_spec
PathFinder.find_spec = lambda name, *further: None if name.partition(".")[0] in {absent} else whole(name, *further)
print(*(f"no-{{name}}" for name in {absent} if find_spec(name) is None))
print(*(importlib.import_module(name).__name__ for name in {modules}))
"""
"""A process in which packages are as if they were not installed."""


def test_training_sampling_and_metrics_need_neither_ray_nor_mlflow() -> None:
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, exclude_type_checking_imports=True)
    for module in (*MEASURED, "trainables.trial", "trainables.sampling", "analysis.metrics"):
        for package in ABSENT:
            assert graph.find_shortest_chain(module, package) is None, (module, package)
    assert graph.find_shortest_chain("sweep.engine", "ray")  # else this test shows nothing


@pytest.mark.slow
def test_they_are_imported_where_neither_is_installed() -> None:
    """Nor does a library that they import do without an error what it could not do there."""
    done = subprocess.run(
        [*warm_python.command(warm_python.PLAIN), "-c", WITHOUT.format(absent=ABSENT, modules=MEASURED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [*(f"no-{name}" for name in ABSENT), *MEASURED]


@pytest.mark.slow
def test_a_toys_steps_are_measured_beside_the_rivals(tmp_path: Path) -> None:
    """What is compiled is computed as it is: test_compiling.py shows that graphs are made of LoRA's steps."""
    setting = sd15_step.Setting(batch=2, rounds=1, precision="no", backend="eager", toy=True)
    rows = sd15.Rows(tmp_path / "step.json", vars(setting))
    with torch.compiler.set_stance("force_eager"):
        sd15_step.run(
            setting,
            rows,
            strategies=["lora"],
            variants=["eager", "channels_last", "compiled"],
            kernels=["math"],
            rivals=["diffusers_lora", "peft_dora"],
            budget_s=100,
        )
    written = json.loads((tmp_path / "step.json").read_text())["rows"]
    ours = ["lora eager", "lora eager math", "lora channels_last", "lora compiled"]
    assert [row["name"] for row in written] == [*ours, "diffusers_lora", "peft_dora"]
    assert all(row["error"] == "" and row["images_per_s"] > 0 for row in written)
    drifts = [row["drift"]["loss"] for row in written if row["drift"]]
    assert len(drifts) == 2 and max(drifts) < 1e-4
    assert rows.table("").row_count == 6


@pytest.mark.slow
def test_a_toys_films_are_measured_beside_the_rivals(tmp_path: Path) -> None:
    setting = sd15_sampling.Setting(films=2, steps=2, guidance=7.5, backend="eager", toy=True)
    rows = sd15.Rows(tmp_path / "sampling.json", vars(setting))
    variants = ["fp32", "bf16", "compiled"]
    sd15_sampling.run(setting, rows, batches=[2], variants=variants, rivals=["diffusers_fp16"], budget_s=100)
    written = {row["name"]: row for row in json.loads((tmp_path / "sampling.json").read_text())["rows"]}
    assert list(written) == [*variants, "diffusers_fp16"]
    assert all(row["error"] == "" for row in written.values())
    assert written["fp32"]["drift"] == {"grey levels": 0, "features": 0}
    assert 0 < written["bf16"]["drift"]["grey levels"] < 8 and written["bf16"]["drift"]["features"] < 0.1


def test_films_are_compared_as_far_as_both_batches_go() -> None:
    films = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    for reference, compared in ((films, films[:2]), (films[:2], films)):
        assert sd15_sampling.drift(reference, compared) == {"grey levels": 0, "features": 0}


def test_what_does_not_work_is_a_row_that_says_why_and_each_is_written_as_it_is_had(tmp_path: Path) -> None:
    def broken() -> None:
        raise torch.OutOfMemoryError("out of memory")

    rows, settings = sd15.Rows(tmp_path / "rows.json", {}), {"batch": 1, "images": 1}
    num_rows: list[int] = []

    def turn() -> None:
        num_rows.append(len(json.loads((tmp_path / "rows.json").read_text())["rows"]))

    works = sd15.Candidate(name="works", turn=turn, **settings)
    sd15.measure([sd15.Candidate(name="broken", turn=broken, **settings), works], rows, rounds=2, deadline_s=1e18)
    assert [row.error for row in rows.rows] == ["OutOfMemoryError: out of memory", ""]
    assert len(rows.rows[1].turns_s) == 2
    assert num_rows == [1, 2, 2]
    sd15.measure([sd15.Candidate(name="late", turn=turn, **settings)], rows, rounds=1, deadline_s=0.0)
    assert "the time is up" in rows.rows[2].error and rows.rows[2].images_per_s is None


@pytest.mark.slow
def test_the_check_finds_a_strategy_sound_and_numbers_that_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sound,) = gpu_check.correctness(["lora"], ["no"], tmp_path)
    assert sound.is_sound and sound.loss == 0 and sound.pixels == 0  # the device is the CPU itself
    assert json.loads((tmp_path / "checks.json").read_text())[0]["strategy"] == "lora"
    assert not gpu_check.Check(strategy="lora", precision="no", loss=0.1, pixels=0.0).is_sound
    assert not gpu_check.Check(strategy="lora", precision="no", error="RuntimeError").is_sound
    assert gpu_check.shown([sound]).row_count == 1
    with pytest.raises(SystemExit, match="`make gpu-check` must run where torch sees a GPU"):
        gpu_check.main(to=tmp_path, budget_s=1.0, strategies=",".join(STRATEGIES))


def test_options_that_name_nothing_are_refused() -> None:
    assert sd15.listed("none", ["a"], "--x") == [] and sd15.listed("a, b", ["a", "b"], "--x") == ["a", "b"]
    with pytest.raises(ValueError, match="`--x` must be names among a, b, but got 'c'"):
        sd15.listed("a,c", ["a", "b"], "--x")
