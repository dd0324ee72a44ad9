"""Where a run's numbers come from."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sweep.config import SweepConfig

PACKAGES: Final = (
    "radiograph-sweep",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "ray",
    "optuna",
    "mlflow",
    "torchxrayvision",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "safetensors",
)


def collect_provenance(config: SweepConfig, data_fingerprint: str, weights_hash: str) -> dict[str, Any]:
    """Where a run's numbers come from: code, packages, machine, data, base weights, seed and command.

    Args:
        config: what the sweep is to do.
        data_fingerprint: identity of the prepared films.
        weights_hash: identity of the base's weights.
    """
    return {
        "started": datetime.now(UTC).isoformat(),
        "command": sys.argv,
        "seed": config.seed,
        "data_fingerprint": data_fingerprint,
        "base": {"name": config.base, "weights_hash": weights_hash},
        "git_commit": _git_commit(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in _installed(PACKAGES)},
    }


def _installed(names: Sequence[str]) -> list[str]:
    present = {name.lower() for dist in importlib.metadata.distributions() if (name := dist.metadata["Name"])}
    return [name for name in names if name in present]


def _git_commit(folder: Path) -> str | None:
    """The commit that the code is at, with `-dirty` where files differ from it; None where git cannot say."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
