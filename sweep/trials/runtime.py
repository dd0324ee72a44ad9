"""Ray itself: the cluster that a sweep is given, or an instance of its own, whatever else runs on the machine."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil
import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub is older than it

from sweep.config import ComputeConfig, ConfigError
from sweep.records.guard import OF_RAY, ray_watched
from sweep.trials.cluster import ADDRESS, AUTH_MODE, TOKEN, TOKEN_PATH, Cluster, find_cluster
from sweep.trials.resources import local_cpus

RAY_SETTINGS: Final = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Settings of Ray, by which processes that were promised no GPU see none: else they would compute on GPUs promised to
others."""
OWN_SETTINGS: Final = {**RAY_SETTINGS, "RAY_worker_niceness": "0", "RAY_enable_metrics_collection": "0"}
"""Settings of the sweep's own Ray. By default its workers are so nice (15) that beside other work they get next to
nothing, and its metrics are for a dashboard that it does not have."""
OF_OTHERS: Final = (ADDRESS, "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT")
"""Variables that would tie the sweep's own Ray to another one."""
START_ATTEMPTS: Final = 3
"""On a machine under load Ray's own processes may come up too late for each other."""
SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
SHORT_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def ray_runtime(compute: ComputeConfig) -> Iterator[None]:
    """Ray for the length of a sweep: the cluster that is named, else one of its own on this machine.

    Args:
        compute: where to connect.

    Raises:
        ConfigError: no cluster can be at the address, or this machine has no folder for Ray.
        ConnectionError: the cluster does not answer or lets nobody in.
        RuntimeError: Ray does not start on this machine.
    """
    if ray.is_initialized():
        yield
        return
    cluster = find_cluster(compute)
    with _own_ray(compute) if cluster is None else _connected(cluster):
        yield


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    try:
        _init(address=cluster.address, runtime_env={"env_vars": RAY_SETTINGS})
    except (RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(
            f"`{cluster.origin}` must be a cluster of this machine's Ray and Python that this machine belongs to, but got "
            f"{cluster.address}: {' '.join(str(error).split())} Run the sweep on one of its machines, with what they have installed."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _init(**options: Any) -> None:
    ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=True, **options)


@contextmanager
def _own_ray(compute: ComputeConfig) -> Iterator[None]:
    with _session_folder() as folder, _own_environment():
        before = set(psutil.Process().children())
        _start(folder, local_cpus(compute, os.cpu_count() or 1))
        _end_helpers(set(psutil.Process().children()) - before)
        try:
            with ray_watched():
                yield
        finally:
            ray.shutdown()


def _end_helpers(started: set[psutil.Process]) -> None:
    """End those of Ray's processes that nobody needs: of logs, which it reads several times a second for no one.

    Ray has no setting for that, and would wait a second for each at its own end.
    """
    for process in started:
        with suppress(psutil.NoSuchProcess):
            if process.name() not in OF_RAY:
                process.kill()
                process.wait()


def _start(folder: Path, num_cpus: int) -> None:
    """Start Ray, more than once where its processes came up too late."""
    options = {"address": "local", "_temp_dir": str(folder), "num_cpus": num_cpus, "include_dashboard": False}
    for attempt in range(START_ATTEMPTS):
        before = set(psutil.Process().children())
        try:
            _init(**options)
            return
        except Exception as error:  # Ray raises bare ones, and none of them says what to do
            for process in set(psutil.Process().children()) - before:
                process.kill()
            if attempt + 1 == START_ATTEMPTS or isinstance(error, OSError | ValueError):
                raise RuntimeError(
                    f"`ray` must start on this machine, but got: {' '.join(str(error).split())} Its logs are in "
                    f"{folder / 'session_latest' / 'logs'}. Free memory and disk, wait until the machine is less busy, or "
                    "give the compute.address of a cluster."
                ) from error


@contextmanager
def _session_folder() -> Iterator[Path]:
    """A folder for Ray's logs and sockets: the usual one, or a short path where that cannot be written or is too long."""
    usual = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp").absolute() / "ray"
    takes_files = _takes_files(usual)
    if takes_files and _longest_socket(usual) <= SOCKET_PATH_BYTES:
        yield usual
        return
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=_short_folder(usual)))
    if takes_files:  # its disk is the one to use; the kernel counts the bytes of the path that it is given
        (folder / "ray").symlink_to(usual)
    try:
        yield folder / "ray"
    finally:
        if takes_files:
            shutil.rmtree(folder)


def _longest_socket(folder: Path) -> int:
    session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    return len(os.fsencode(folder / session / "sockets" / "plasma_store"))


def _takes_files(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _short_folder(usual: Path) -> str:
    for folder in SHORT_FOLDERS:
        if _takes_files(Path(folder)):
            return folder
    raise ConfigError(
        f"`TMPDIR` must be a folder that can be written, with a short path, but got {str(usual.parent)!r}, and none of "
        f"{', '.join(SHORT_FOLDERS)} can be written. Set RAY_TMPDIR to a folder of at most 40 characters."
    )


@contextmanager
def _own_environment() -> Iterator[None]:
    """The variables that the sweep's own Ray needs, and none that belong to another."""
    before = dict(os.environ)
    for name in OF_OTHERS:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in OWN_SETTINGS.items() if name not in os.environ})
    os.environ.update(_own_token())
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        _restore(before)


def _restore(before: Mapping[str, str]) -> None:
    for name in (*OF_OTHERS, *OWN_SETTINGS, TOKEN):
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    AuthenticationTokenLoader.instance().reset_cache()


def _own_token() -> dict[str, str]:
    """A token for this Ray alone, if neither there is one nor the home folder takes the one that Ray would make."""
    named = os.environ.get(TOKEN_PATH)
    is_served = _is_readable(Path(named)) if named else _takes_token()
    if is_served or os.environ.get(TOKEN) or os.environ.get(AUTH_MODE, "token").lower() != "token":
        return {}
    return {TOKEN: secrets.token_hex(32)}


def _takes_token() -> bool:
    try:
        home = Path.home() / ".ray"
    except RuntimeError:  # a user id without a home, as in containers
        return False
    return _is_readable(home / "auth_token") or _takes_files(home)


def _is_readable(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except OSError:
        return False
