"""cluster.yaml and cluster-local.yaml, by Ray's own validation and by what must hold of them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

from sweep.loading import load_config

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


@pytest.mark.parametrize(
    "provider",
    [
        {"type": "gcp", "region": "us-west1", "availability_zone": "us-west1-a", "project_id": "radiographs"},
        {"type": "azure", "location": "westus2", "resource_group": "radiographs"},
    ],
    ids=lambda provider: provider["type"],
)
def test_ray_accepts_what_the_file_says_of_other_clouds(text: str, provider: dict[str, str]) -> None:
    """Its provider and machines are others, and the first start command of the head is left out."""
    changed = yaml.safe_load(text) | {"provider": provider, "auth": {"ssh_user": "ubuntu"}}
    for kind in changed["available_node_types"].values():
        kind["node_config"] = {"machineType": "n1-standard-8"}
    assert "meta-data" in changed["head_start_ray_commands"].pop(0)
    prepared = prepare_config(changed)
    validate_config(prepared)
    assert prepared["provider"]["type"] == provider["type"]
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config({**prepared, "max_wrkers": 8})


def test_ray_would_refuse_a_misspelt_key(text: str) -> None:
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config(prepare_config(yaml.safe_load(text.replace("\nmax_workers: 8", "\nmax_wrkers: 8"))))


def test_ray_accepts_the_file_for_own_machines() -> None:
    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster-local.yaml").read_text())))


def test_own_machines_are_set_up_and_started_as_on_aws(text: str) -> None:
    aws, local = yaml.safe_load(text), yaml.safe_load((ROOT / "cluster-local.yaml").read_text())
    for part in ("file_mounts", "rsync_exclude", "setup_commands", "worker_start_ray_commands"):
        assert local[part] == aws[part], part
    of_an_image, *started = aws["head_start_ray_commands"]
    assert "meta-data/ami-id" in of_an_image
    stop, forget, start = local["head_start_ray_commands"]
    assert forget == f"rm -f /tmp/ray/cluster-{local['cluster_name']}.state"
    assert [stop, start.replace("RAY_enable_autoscaler_v2=0 ", "")] == started


def test_no_step_runs_a_script_from_the_network(text: str) -> None:
    for file in (text, (ROOT / "cluster-local.yaml").read_text()):
        assert not re.search(r"(curl|wget)[^\n]*\|\s*(ba)?sh", file)


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
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


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


@pytest.mark.parametrize("file", ["cluster.yaml", "cluster-local.yaml"])
def test_it_holds_no_secret(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|aws_access|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=", text)
    assert not re.search(r"\b(?=[0-9a-f]*\d)[0-9a-f]{32,}\b", text)


@pytest.mark.parametrize("file", ["README.md", "scripts/rayjob.yaml", "scripts/slurm.sh"])
def test_the_sweeps_that_are_written_down_are_accepted(file: str) -> None:
    settings = re.findall(r"--set (compute\.[a-z_]+=[\w.]+)", (ROOT / file).read_text())
    assert "compute.may_grow=true" in settings
    load_config("nih512", None, settings)


@pytest.mark.parametrize(("failures", "starts", "status"), [(0, 1, 0), (2, 3, 0), (3, 3, 1)])
def test_a_worker_that_starts_too_slowly_starts_anew(
    cluster: dict[str, Any], tmp_path: Path, failures: int, starts: int, status: int
) -> None:
    """Its `ray` notes what it is told, and fails to start so often."""
    ray = tmp_path / "radiograph-sweep" / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text(
        f'#!/bin/sh\necho $1 >> "$HOME/told"\n[ $1 = stop ] || [ $(grep -c start "$HOME/told") -gt {failures} ]\n'
    )
    ray.chmod(0o700)
    command = "; ".join(cluster["worker_start_ray_commands"])
    done = subprocess.run(["bash", "-c", command], env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, check=False)
    assert (tmp_path / "told").read_text().split() == ["stop", "start"] * starts
    assert done.returncode == status
