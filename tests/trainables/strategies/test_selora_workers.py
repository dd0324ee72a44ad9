"""SeLoRA on a group of real processes that average their gradients."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import expand_on_worker
import numpy as np
import pytest
import torch
import warm_python

from sweep.records.servers import port_for
from trainables.datasets.store import PreparedDataset

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("expand_on_worker.py")


def alone(dataset: Path, to: Path) -> dict[str, Any]:
    """What one worker without a group ends with, in this process."""
    with torch.random.fork_rng(devices=[]):
        expand_on_worker.main(dataset, to)
    return ended(to, 1, 0)


def group(number: int, dataset: Path, to: Path) -> list[dict[str, Any]]:
    """What each of a group of processes ends with."""
    port = str(port_for("port", None, 5800))  # none of those that the system gives to whatever connects meanwhile
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
    running = []
    for rank in range(number):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [*warm_python.command(), str(SCRIPT), str(dataset), str(to)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    return [ended(to, number, rank) for rank in range(number)]


def ended(folder: Path, number: int, rank: int) -> dict[str, Any]:
    return dict(torch.load(folder / f"{number}-{rank}.pt", weights_only=True))


@pytest.mark.slow
def test_two_workers_grow_the_same_layers_as_one_does_and_stay_alike(dataset: PreparedDataset, tmp_path: Path) -> None:
    """Parameters change their shape on both, and go on being trained on the mean of both's gradients."""
    single = alone(dataset.folder, tmp_path)
    first, second = group(2, dataset.folder, tmp_path)
    assert [worker["is_wrapped"] for worker in (single, first, second)] == [False, True, True]
    assert first["history"] == second["history"] == single["history"]
    assert 1 < np.mean(list(first["history"][-1]["ranks"].values())) < len(first["history"])
    assert [worker["micro_batch"] for worker in (single, first, second)] == [8, 2, 2]  # as the second has no more room
    assert first["losses"] == second["losses"] == pytest.approx(single["losses"], rel=1e-5)
    for name, parameter in first["parameters"].items():
        assert torch.equal(parameter, second["parameters"][name])
        torch.testing.assert_close(parameter, single["parameters"][name], rtol=1e-2, atol=1e-4)
    assert all(map(torch.equal, first["averages"], second["averages"]))
    assert [worker["suspended_at"] for worker in (single, first, second)] == [1, 2, 2]  # one is asked, both hear of it
    for worker in (single, first, second):
        assert worker["losses_of_suspended"] == pytest.approx(worker["losses"], rel=1e-6)
        for name, parameter in worker["parameters"].items():
            assert torch.equal(worker["parameters_of_suspended"][name], parameter)
