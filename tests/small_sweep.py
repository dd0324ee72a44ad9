"""A sweep of seconds, by the command itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from click.testing import Result
from typer.testing import CliRunner

from sweep import run

SETTINGS = (
    *("data.num_patients=22", "data.seed=12"),  # few films, and of each condition two for validation
    "training.num_epochs=2",
    "evaluation.images_per_condition=4",
    "evaluation.num_steps=2",
)


def invoke(command: Callable[..., Any], *options: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(options))


def sweep_of(out: Path, num_trials: int, *settings: str) -> Result:
    options = [text for setting in (*SETTINGS, *settings) for text in ("--set", setting)]
    return invoke(run.main, "--out", str(out), "--num-trials", str(num_trials), *options)
