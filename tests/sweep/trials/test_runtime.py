"""Ray itself: the cluster that is named, or one of the sweep's own beside those of others, on machines that are in its way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader

from sweep.config import ComputeConfig, ConfigError
from sweep.trials.relay import root_message
from sweep.trials.runtime import find_cluster, require_gpus

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "0123456789abcdef" * 4
UNWRITABLE = "/sys"
"""A folder in which nobody, root included, can make another."""
OF_RAY = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "TMPDIR")
OWN_RAY = """
import json, os, sys
import ray
from sweep.config import ComputeConfig
from sweep.trials.runtime import ray_runtime

def nice():
    return os.nice(0)

before = dict(os.environ)
with ray_runtime(ComputeConfig(concurrent_trials=7)):
    address = ray.get_runtime_context().gcs_address
    cpus, nice = ray.cluster_resources()["CPU"], ray.get(ray.remote(nice).remote())
changed = sorted(name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name))
print(json.dumps({"address": address, "cpus": cpus, "nice": nice, "changed": changed}))
"""
"""A sweep's Ray without its sweep: where it is, what it promises, how nice its workers are, which variables stay changed."""
USE_CLUSTER = """
import sys, ray
from sweep.config import ComputeConfig
from sweep.trials.runtime import ray_runtime

with ray_runtime(ComputeConfig(address=sys.argv[1])):
    print(ray.get_runtime_context().gcs_address)
    try:
        ray.get(ray.remote(max_retries=0)(lambda: __import__("time").sleep(60)).remote())
    except ray.exceptions.RayError as error:
        print(error)
"""


def environment(**values: str) -> dict[str, str]:
    """This process's variables, without what concerns Ray, and with these."""
    return (
        {name: value for name, value in os.environ.items() if name not in OF_RAY} | {"PYTHONPATH": str(ROOT)} | values
    )


def run_python(code: str, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment(**values), capture_output=True, text=True, timeout=300, check=False)


@dataclass(frozen=True)
class Foreign:
    """Somebody else's Ray: it wants a token, and ends its workers as on a machine that has no memory left."""

    address: str
    folder: Path
    token: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """Short enough for Ray's sockets, which a folder of pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def foreign(short_folder: Path) -> Iterator[Foreign]:
    """Alive for all tests of this file; others' Ray is neither used nor stopped."""
    port, token = free_port(), short_folder / "token"
    token.write_text(TOKEN)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1",
        f"--temp-dir={short_folder / 'ray'}", "--num-cpus=1", "--include-dashboard=false", "--dashboard-agent-listen-port=0",
    ]  # fmt: skip
    settings = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_worker_niceness": "0",
        "RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100",
    }  # fmt: skip
    with (short_folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment(**settings), stdout=log, stderr=log, start_new_session=True)
    try:
        while not (short_folder / "ray" / "ray_current_cluster").is_file():
            assert process.poll() is None, (short_folder / "log").read_text()
            time.sleep(0.2)
        yield Foreign(address=f"127.0.0.1:{port}", folder=short_folder, token=token)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a_folder_whose_path_is_longer_than_any_socket_may_have" * 2)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of Ray's is set, and there is no token."""
    for name in OF_RAY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", UNWRITABLE)
    AuthenticationTokenLoader.instance().reset_cache()
    yield
    monkeypatch.undo()
    AuthenticationTokenLoader.instance().reset_cache()


def test_a_sweep_has_a_ray_of_its_own_whatever_else_runs_and_whatever_the_machine_lacks(
    foreign: Foreign, long_folder: Path
) -> None:
    """Beside a live cluster, with a stale address file, a long TMPDIR, a home that cannot be written and a dead Redis."""
    (long_folder / "ray").mkdir()
    (long_folder / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    values = {"TMPDIR": str(long_folder), "HOME": UNWRITABLE, "RAY_REDIS_ADDRESS": f"127.0.0.1:{free_port()}"}
    came = run_python(OWN_RAY, **values)
    assert came.returncode == 0, came.stderr
    found = json.loads(came.stdout)
    assert found["address"] != foreign.address
    assert found["cpus"] == max(os.cpu_count() or 1, 9)  # seven trials of one CPU and a bit, and the evaluation's
    assert found["nice"] == os.nice(0)
    assert found["changed"] in ([], ["RAY_AUTH_MODE"])  # Ray's own, and harmless
    assert came.stderr == ""
    assert list((long_folder / "ray").glob("session_2*/logs/raylet.out"))


def test_the_token_of_a_cluster_is_found_where_it_lies(foreign: Foreign, tmp_path: Path) -> None:
    """And what its machine lacks is said as what happened, not as where to read about it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    came = run_python(USE_CLUSTER, foreign.address, HOME=str(tmp_path))
    assert came.returncode == 0, came.stderr
    address, _, failure = came.stdout.partition("\n")
    assert address == foreign.address
    assert "`memory` of the machine must suffice for all that runs on it, but got" in root_message(failure)
    assert "Lower compute.concurrent_trials" in root_message(failure)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, "a token where there is none"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "another token than the one here"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": TOKEN}, "a token where RAY_AUTH_MODE is 'disabled'"),
    ],
)
def test_a_cluster_that_wants_another_token_says_so_at_once(
    foreign: Foreign, values: dict[str, str], wanted: str
) -> None:
    came = run_python(USE_CLUSTER, foreign.address, HOME=UNWRITABLE, **values)
    last = came.stderr.strip().splitlines()[-1]
    assert (
        f"ConnectionError: `compute.address` must be a cluster that lets this sweep in, but got {foreign.address}"
        in last
    )
    assert f"which wants {wanted}. Copy the token" in last


def silent_port() -> socket.socket:
    """A port at which something takes connections and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("variable", [True, False])
def test_an_address_without_a_ray_is_named_within_seconds(
    homeless: None, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    """Where nothing listens, where something listens that is no Ray, and where the name of the machine is unknown."""
    with silent_port() as silent:
        for address in (
            f"127.0.0.1:{free_port()}",
            f"127.0.0.1:{silent.getsockname()[1]}",
            "no.such.machine.invalid:6379",
        ):
            if variable:
                monkeypatch.setenv("RAY_ADDRESS", address)
            origin, started_s = ("RAY_ADDRESS" if variable else "compute.address"), time.monotonic()
            with pytest.raises(ConnectionError, match=f"`{origin}` must be a running cluster, but got {address}"):
                find_cluster(ComputeConfig(address=None if variable else address))
            assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "http://head:8265", "head:port"])
def test_what_is_no_address_is_refused(homeless: None, address: str) -> None:
    with pytest.raises(ConfigError, match=r"`compute\.address` must be auto, local or HOST:PORT"):
        find_cluster(ComputeConfig(address=address))


def test_a_stale_address_file_is_named_where_the_ray_of_this_machine_is_asked_for(
    homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another Ray that is alive comes first, as Ray has it; both are asked before anything waits for them."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"`compute\.address=auto on this machine` must be"):
        find_cluster(ComputeConfig(address="auto"))


@pytest.mark.parametrize("address", [None, "local"])
def test_without_an_address_there_is_no_cluster_to_find(
    homeless: None, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "" if address is None else f"127.0.0.1:{free_port()}")
    assert find_cluster(ComputeConfig(address=address)) is None


@pytest.mark.parametrize(("available", "enough"), [(0, False), (1, False), (2, True), (8, True)])
def test_a_trial_must_find_gpus_beside_the_evaluation(available: int, enough: bool) -> None:
    compute = ComputeConfig(gpus_per_worker=0.5, workers_per_trial=2, evaluation_gpus=0.25, evaluation_actors=2)
    said = f"but got 1 for a trial and 0.5 for evaluation where there are {available}"
    with nullcontext() if enough else pytest.raises(ConfigError, match=said):
        require_gpus(compute, available)
