"""What it costs to add one: an object in a table. A toy of each kind goes through its kind's suite and through a sweep."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import warm_python

HERE = Path(__file__).resolve().parent
SUITES = ("strategies", "metrics", "feature_extractors", "sources", "samplers", "exports", "presets")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_toys_pass_the_suites_of_their_kinds_and_a_sweep_together() -> None:
    """In a process of its own, so that the toys are in no other test's tables."""
    files = [f"test_{suite}.py" for suite in SUITES]
    command = [
        *warm_python.command(),
        "-m",
        "pytest",
        "-p",
        "toys",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rA",
        "-k",
        "toy or spaces",
    ]
    command += [str(HERE / name) for name in (*files, "test_search_spaces.py", "sweep_of_toys.py")]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "WITH_TOYS": "1", "PYTEST_ADDOPTS": ""}
    result = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]
    for name in (*files, "test_search_spaces.py", "sweep_of_toys.py"):
        assert re.search(rf"^PASSED \S*{name}::", result.stdout, re.MULTILINE), f"{name} ran nothing:\n{result.stdout}"
