"""The doors between the packages, as import-linter finds them here and in copies that break them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweep", "trainables", "search_spaces", "analysis")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's Python files and their rules."""
    folder = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=_all_but_python)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not ((Path(folder) / name).is_dir() or name.endswith(".py"))]


def test_every_door_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("trainables/strategies", "import analysis.front.pareto", "The three libraries know neither each other"),
        ("search_spaces", "from trainables import settings", "The three libraries know neither each other"),
        ("trainables/datasets", "import sweep.config", "Nobody imports the sweep"),
        ("analysis/metrics", "import ray", "Analysis is free of Ray and MLflow"),
        ("analysis/features", "def late():\n    from mlflow import MlflowClient", "Analysis is free of Ray and MLflow"),
        ("sweep", "import mlflow", "Only sweep.records.tracking imports MLflow"),
        ("trainables", "import pyarrow.parquet", "Arrow stays behind the data sets' tensors"),
        ("search_spaces", "import torch", "Search spaces import Optuna and nothing else heavy"),
        ("analysis/metrics", "import torch", "Metrics are functions of arrays"),
    ],
)
def test_a_door_that_is_forced_is_found(copied: Path, module: str, statement: str, contract: str) -> None:
    intruder = copied / module / "intruder.py"
    intruder.write_text(f"{statement}\n")
    result = lint(copied)
    intruder.unlink()
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    assert result.returncode == 1
    assert any(line.startswith(contract) for line in broken), result.stdout
