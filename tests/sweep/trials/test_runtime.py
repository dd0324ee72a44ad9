"""Ray itself: the cluster that is named, or one of the sweep's own beside those of others, on machines that are in its way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from sweep.config import ComputeConfig, ConfigError
from sweep.trials import cluster
from sweep.trials.cluster import find_cluster
from sweep.trials.relay import root_message
from sweep.trials.runtime import OF_OTHERS, OWN_SETTINGS

ROOT = Path(__file__).resolve().parents[3]
UNWRITABLE = "/sys"
"""A folder in which nobody, root included, can make another."""
OF_RAY = (
    *("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "TMPDIR"),
    *(warm_python.OF_RAY, warm_python.PRESTART),  # a sweep's own Ray starts its workers as it does elsewhere
)
OWN_RAY = """
import json, os, time
from contextlib import suppress
import psutil, ray
from ray import tune
from sweep.config import ComputeConfig
from sweep.trials.runtime import ray_runtime
from sweep.trials.tuner import set_up_tune

before, shutdown, left = dict(os.environ), ray.shutdown, []

def shutdown_seen():
    deadline_s = time.monotonic() + 30
    while len(psutil.Process().children()) > 2 and time.monotonic() < deadline_s:
        psutil.wait_procs(psutil.Process().children(), timeout=0.1)  # what was killed takes a moment
    left.extend(sorted(process.name() for process in psutil.Process().children()))
    shutdown()

ray.shutdown = shutdown_seen
with ray_runtime(ComputeConfig(concurrent_trials=7)):
    found = {"address": ray.get_runtime_context().gcs_address, "cpus": ray.cluster_resources()["CPU"]}
    found["processes"] = sorted(process.name() for process in psutil.Process().children())
    workers = []
    while not workers:  # they are started ahead of their work
        time.sleep(0.1)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # one that memory is taken from at this moment
                workers += [process.nice()] if "default_worker.py" in " ".join(process.cmdline()) else []
    try:
        ray.get(ray.remote(max_retries=0)(lambda: time.sleep(60)).remote())
    except ray.exceptions.RayError as error:
        found["failure"] = str(error)
    errors = []
    set_up_tune()
    told = type("Told", (tune.Callback,), {"on_trial_error": lambda self, trial, **info: errors.append(trial.config["name"])})
    config = tune.RunConfig(storage_path=os.environ["TMPDIR"], callbacks=[told()], verbose=0)
    tune.Tuner(lambda config: time.sleep(60), param_space={"name": tune.grid_search(["a", "b"])}, run_config=config).fit()
    found["errors"] = sorted(errors)
changed = [name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)]
print(json.dumps({**found, "nice": max(workers), "changed": changed, "left": left}))
"""
"""A sweep's Ray without its sweep: where it is, what it promises, how nice its workers are, what it says when memory ran out,
what Tune then tells of its trials, which variables stay changed, and which processes Ray itself ends one after the other."""

ASKING = """
import json, os, sys
from ray._raylet import AuthenticationTokenLoader
from sweep.config import ComputeConfig
from sweep.trials.cluster import find_cluster

plain, (address, cases) = dict(os.environ), sys.argv[1:]
for values in json.loads(cases):
    os.environ.clear()
    os.environ.update(plain | values)
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        print(find_cluster(ComputeConfig(address=address)).address)
    except ConnectionError as error:
        print(error)
"""
"""Who asks for a cluster with other variables each time; the tests' own process needs those that it has."""


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_sweep_has_a_ray_of_its_own_whatever_else_runs_and_whatever_the_machine_lacks(
    ray_address: str, long_folder: Path
) -> None:
    """Beside another's live cluster, with a stale address file, a long TMPDIR, a home that cannot be written, a dead Redis,
    and no memory to speak of."""
    (long_folder / "ray").mkdir()
    (long_folder / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    values = {
        "TMPDIR": str(long_folder), "HOME": UNWRITABLE, "RAY_REDIS_ADDRESS": f"127.0.0.1:{free_port()}",
        "RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    plain = {name: value for name, value in os.environ.items() if name not in OF_RAY}
    command = [*warm_python.command(), "-c", OWN_RAY]
    came = subprocess.run(command, env=plain | values, capture_output=True, text=True, timeout=300, check=False)
    assert came.returncode == 0, came.stderr
    facts = json.loads(came.stdout.splitlines()[-1])
    assert facts["address"] != ray_address
    assert facts["cpus"] == max(os.cpu_count() or 1, 8)  # seven trials of one CPU, and the evaluation's
    assert facts["nice"] == os.nice(0)
    assert not set(facts["changed"]) & {*OF_OTHERS, *OWN_SETTINGS, "RAY_AUTH_TOKEN", "HOME", "TMPDIR"}
    assert facts["processes"] == facts["left"] == ["gcs_server", "raylet"]  # for each, Ray waits a second at its end
    assert came.stderr == ""
    assert list((long_folder / "ray").glob("session_2*/logs/raylet.out"))
    assert facts["errors"] == ["a", "b"]  # each lost for want of memory, and none ends Tune
    said = root_message(facts["failure"])
    assert "`memory` of the machine must suffice for all that runs on it, but got" in said
    assert "Lower training.micro_batch, compute.concurrent_trials" in said


@pytest.fixture
def token(ray_address: str) -> str:
    """What the tests' Ray wants of those who join it."""
    AuthenticationTokenLoader.instance().reset_cache()
    return str(AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True))


@pytest.fixture
def answers(ray_address: str, token: str, tmp_path: Path) -> list[str]:
    """What is found of the tests' Ray in a process of its own with its token, with none, with another, and with tokens disabled."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(token)
    another = {"HOME": UNWRITABLE, "RAY_AUTH_TOKEN": "f" * 64}
    cases = [{"HOME": str(tmp_path)}, {"HOME": UNWRITABLE}, another, {**another, "RAY_AUTH_MODE": "disabled"}]
    plain = {name: value for name, value in os.environ.items() if name not in OF_RAY} | {"PYTHONPATH": str(ROOT)}
    command = [*warm_python.command(), "-c", ASKING, ray_address, json.dumps(cases)]
    came = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=300, check=False)
    assert came.returncode == 0, came.stderr
    return came.stdout.splitlines()


def test_a_cluster_that_wants_another_token_says_so_at_once(ray_address: str, answers: list[str]) -> None:
    assert answers[0] == ray_address
    wanted = ("where there is none", "another token than the one here", "a token where RAY_AUTH_MODE is 'disabled'")
    for answer, want in zip(answers[1:], wanted, strict=True):
        assert f"must be a cluster that lets this sweep in, but got {ray_address}, which wants " in answer
        assert f"{want}. Copy the token" in answer


def silent_port() -> socket.socket:
    """A port at which something takes connections and never answers."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.slow
@pytest.mark.parametrize("variable", [True, False])
def test_an_address_without_a_ray_is_named_within_seconds(
    homeless: None, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    """Where nothing listens, where something listens that is no Ray, and where the name of the machine is unknown."""
    monkeypatch.setattr(cluster, "PROBE_S", 1.0)
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
            assert time.monotonic() - started_s < 25


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
