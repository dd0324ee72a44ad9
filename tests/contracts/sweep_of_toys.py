"""One sweep of two trials that uses every toy, run by test_extending.py in a process that has the toys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import typer
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from sweep import export, prepare, run
from trainables.base_models.shapes import base_on_meta
from trainables.strategies import make_strategy
from trainables.strategies.footprint import footprint
from trainables.strategies.overview import choices

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def ray_with_toys() -> Iterator[None]:
    """A local Ray whose workers add the toys to the tables when they start."""
    environment = {"worker_process_setup_hook": "toys.register", "env_vars": {"PYTHONPATH": str(HERE)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
    yield
    ray.shutdown()


def invoke(command: Callable[..., Any], *options: str | Path) -> Result:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(map(str, options)))
    assert result.exit_code == 0, result.output
    return result


def test_a_toy_of_each_kind_goes_through_the_commands(ray_with_toys: None, tmp_path: Path) -> None:
    data, out, exported = tmp_path / "data", tmp_path / "run", tmp_path / "exported"
    invoke(prepare.main, "toy", "--to", data)
    invoke(run.main, "--preset", "toy", "--set", f"data.path={data}", "--out", out)
    trials = pd.read_parquet(out / "trials.parquet")
    assert trials["strategy"].tolist() == ["toy", "toy"] and trials["status"].tolist() == ["completed", "completed"]
    assert trials["param/lr"].between(1e-3, 1e-2).all() and trials["param/lr"].nunique() == 2
    assert (trials["toy_shift_toy"] > 0).all() and trials["fid_toy"].notna().all()
    assert json.loads((out / "config.json").read_text())["search"]["sampler"] == "toy"
    assert "shift (toy)" in (out / "report.html").read_text()
    invoke(export.main, "--run", out, "--pick", "best:toy_shift_toy", "--format", "toy", "--to", exported)
    assert set(load_file(exported / "toy.safetensors")) == {"unet.conv_out.weight", "unet.conv_out.bias"}
    assert ("toy", {}) in choices(rank=8)  # what `sweep.describe` describes
    told = footprint(base_on_meta("mini"), make_strategy("toy", {}))
    assert told.trainable_parameters == trials["trainable_parameters"].iloc[0]
