"""The doors between the packages, as import-linter finds them here and in a copy that forces them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweep", "trainables", "search_spaces", "analysis")
FORCED = [
    ("trainables/strategies", "import analysis.front.pareto", "The three libraries know neither each other"),
    ("search_spaces", "from trainables import settings", "The three libraries know neither each other"),
    ("trainables/datasets", "import sweep.config", "Nobody imports the sweep"),
    ("analysis/metrics", "import ray", "Only the sweep imports Ray"),
    ("trainables/base_models", "from ray import tune", "Only the sweep imports Ray"),
    (
        "analysis/features",
        "def late():\n    from mlflow import MlflowClient",
        "Only sweep.records.tracking imports MLflow",
    ),
    ("sweep", "import mlflow", "Only sweep.records.tracking imports MLflow"),
    ("trainables", "import pyarrow.parquet", "Arrow stays behind the data sets' tensors"),
    ("sweep/records", "from pyarrow import fs", "Arrow stays behind the data sets' tensors"),
    ("search_spaces", "import torch", "Search spaces import Optuna and nothing else heavy"),
    ("analysis/metrics", "import torch", "Metrics are functions of arrays"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What is said of a copy of the project in which one intruder forces each door."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=_all_but_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for number, (module, statement, _) in enumerate(FORCED):
        (folder / module / f"intruder_{number}.py").write_text(f"{statement}\n")
    return lint(folder)


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not ((Path(folder) / name).is_dir() or name.endswith(".py"))]


def test_every_door_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FORCED)))
def test_a_door_that_is_forced_is_found(answer: subprocess.CompletedProcess[str], number: int) -> None:
    _, _, contract = FORCED[number]
    assert answer.returncode == 1
    assert any(line.startswith(contract) and " BROKEN" in line for line in answer.stdout.splitlines()), answer.stdout
    _, *told = re.split(r"^(.+)\n-{3,}$", answer.stdout.partition("Broken contracts")[2], flags=re.MULTILINE)
    (chains,) = (text for title, text in zip(told[::2], told[1::2], strict=True) if title.startswith(contract))
    assert f".intruder_{number} ->" in chains, answer.stdout
