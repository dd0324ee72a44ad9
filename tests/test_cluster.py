"""cluster.yaml, by Ray's own validation and by what must hold of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def cluster(text: str) -> dict[str, Any]:
    """The file as `ray up` sees it: with Ray's defaults filled in."""
    prepared: dict[str, Any] = prepare_config(yaml.safe_load(text))
    return prepared


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_ray_would_refuse_a_misspelt_key(text: str) -> None:
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config(prepare_config(yaml.safe_load(text.replace("\nmax_workers: 8", "\nmax_wrkers: 8"))))


def test_a_cpu_head_and_gpu_workers_that_scale_from_none(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert worker["min_workers"] == 0 < worker["max_workers"] <= cluster["max_workers"]


def test_every_ray_process_starts_with_token_authentication(cluster: dict[str, Any]) -> None:
    starts = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    for command in starts:
        assert "ray start" not in command or re.search(r"RAY_AUTH_MODE=token \S*ray start", command)
    assert sum("ray start" in command for command in starts) == 2
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"


def test_processes_compute_with_as_many_threads_as_they_have_cpus(cluster: dict[str, Any]) -> None:
    """Ray leaves the number of threads alone where OMP_NUM_THREADS is set, and `ray up` sets it to 1."""
    assert any("export OMP_NUM_THREADS=1" in part for part in _with_interactive("true"))
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    for command in (start for start in starts if "ray start" in start):
        assert re.search(r"unset OMP_NUM_THREADS\b.*ray start", command)


def test_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    hosts = re.findall(r"--dashboard-host=(\S+)", " ".join(cluster["head_start_ray_commands"]))
    assert hosts == ["127.0.0.1"]


def test_nodes_install_the_lock_file_and_then_the_project(cluster: dict[str, Any]) -> None:
    commands = cluster["head_setup_commands"]
    lock = next(i for i, command in enumerate(commands) if "--require-hashes -r requirements.lock" in command)
    project = next(i for i, command in enumerate(commands) if "--no-deps --no-build-isolation -e ." in command)
    assert lock < project
    assert all(command in cluster["worker_setup_commands"] for command in (commands[lock], commands[project]))


def test_what_is_mounted_is_here(cluster: dict[str, Any]) -> None:
    local = {path for path in cluster["file_mounts"].values() if not path.startswith("~")}
    assert {"sweep", "trainables", "search_spaces", "analysis", "pyproject.toml", "requirements.lock"} <= local
    assert [path for path in sorted(local) if not (ROOT / path).exists()] == []


def test_it_holds_no_secret(text: str) -> None:
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|aws_access|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=", text)
    assert not re.search(r"\b(?=[0-9a-f]*\d)[0-9a-f]{32,}\b", text)
