"""The driver breaks a sweep, as `make chaos` does dozens: it is told to end, and when it has gone on, it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).resolve().parents[2]
KIND = "signal+rename"
"""The second: the process that writes the N-th file of the run directory dies between the file and its record."""
SEED = "124"
"""Of those at which it is told after the first reports of its first trials, and dies before the last ones."""


@pytest.mark.slow
def test_the_driver_starts_as_make_chaos_starts_it() -> None:
    """By a Python that knows of the project what its installation says, and has imported nothing of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "tests/chaos/drive.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0 and "--kinds" in done.stdout, done.stderr[-3000:]


@pytest.mark.slow
def test_a_sweep_that_is_broken_twice_goes_on_to_the_numbers_of_one_that_is_not(
    ray_cluster: None, ray_address: str, out: Path, tmp_path: Path
) -> None:
    """It joins the tests' Ray, where processes of trials that were left would hold what the next test needs."""
    options = ["--kinds", KIND, "--first", SEED, "--seeds", "1", "--reference", str(out), "--address", ray_address]
    done = subprocess.run(
        [*warm_python.command(), "tests/chaos/drive.py", "--to", str(tmp_path), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (line,) = (tmp_path / "outcomes.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["kind"], told["exit_codes"], told["resumes"], told["fault"]) == (KIND, [130, 137], 2, "")
