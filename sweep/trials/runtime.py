"""Ray itself: the cluster that a sweep is given, or an instance of its own, whatever else runs on the machine."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import ray
from grpc import RpcError, StatusCode
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import get_ray_address_from_environment
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub is older than it
from ray.air.execution._internal import actor_manager
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError, OutOfMemoryError, RayActorError

from sweep.config import ComputeConfig, ConfigError
from sweep.records.guard import ray_watched
from sweep.trials.resources import local_cpus

RAY_SETTINGS: Final = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Processes that were promised no GPU see none; else they would compute on GPUs promised to others."""
OWN_SETTINGS: Final = {**RAY_SETTINGS, "RAY_worker_niceness": "0"}
"""Of the sweep's own Ray. Its workers are by default so nice (15) that beside other work they get next to nothing."""
ADDRESS: Final = "RAY_ADDRESS"
OF_OTHERS: Final = (ADDRESS, "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT")
"""Variables that would tie the sweep's own Ray to another one."""
AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_GIVE_A_TOKEN: Final = (
    "Copy the token that `ray get-auth-token` prints on the cluster into ~/.ray/auth_token, "
    f"or name its file in {TOKEN_PATH}."
)
PROBE_S: Final = 5.0
START_ATTEMPTS: Final = 3
"""On a machine under load Ray's own processes may come up too late for each other."""
SOCKET_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
SHORT_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and what said so: a setting or a variable."""

    address: str
    origin: str


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
    count_memory_kills_as_losses()
    if ray.is_initialized():
        yield
        return
    cluster = find_cluster(compute)
    with _own_ray(compute) if cluster is None else _connected(cluster):
        yield


def count_memory_kills_as_losses() -> None:
    """Let Tune take an actor that Ray ended for want of memory for a lost one; by itself it ends the sweep over it."""
    actor_manager.RayActorError = (RayActorError, OutOfMemoryError)


def find_cluster(compute: ComputeConfig) -> Cluster | None:
    """The cluster that is named, which answers; nothing where the sweep starts a Ray of its own.

    Args:
        compute: its `address` comes before the variable RAY_ADDRESS; `auto` is the one on this machine.

    Raises:
        ConfigError: what is named is no address.
        ConnectionError: nothing answers there within seconds, or it wants another token.
    """
    cluster = _named(compute)
    if cluster is not None and cluster.address == "auto":
        cluster = Cluster(_address_on_this_machine(cluster), f"{cluster.origin}=auto on this machine")
    if cluster is None:
        return None
    if not re.fullmatch(r"(\[[^\]]+\]|[^:/\s]+):\d+", cluster.address):
        raise ConfigError(
            f"`{cluster.origin}` must be auto, local or HOST:PORT of a cluster's head, but got {cluster.address!r}. "
            "Run the sweep on a machine of the cluster, and give the address that `ray status` or `ray start` names."
        )
    _expect_answer(cluster)
    return cluster


def _named(compute: ComputeConfig) -> Cluster | None:
    settings = {"compute.address": compute.address, ADDRESS: os.environ.get(ADDRESS)}
    named = {origin: address for origin, address in settings.items() if address}
    if compute.address == "auto" and ADDRESS in named:  # as Ray has it
        del named["compute.address"]
    clusters = [Cluster(address, origin) for origin, address in named.items()]
    return clusters[0] if clusters and clusters[0].address != "local" else None


def _address_on_this_machine(cluster: Cluster) -> str:
    try:
        return str(get_ray_address_from_environment("auto", None))
    except ConnectionError as error:
        raise ConnectionError(
            f"`{cluster.origin}` must be a running cluster, but got {cluster.address!r} where no Ray runs on this machine. "
            "Start one with `ray start --head`, or leave the address out: the sweep then starts its own."
        ) from error


def _expect_answer(cluster: Cluster) -> None:
    came = _answer(cluster.address)
    if came is StatusCode.UNAUTHENTICATED and AUTH_MODE not in os.environ:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        came = _answer(cluster.address)
    if came is StatusCode.UNAUTHENTICATED:
        raise ConnectionError(
            f"`{cluster.origin}` must be a cluster that lets this sweep in, but got {cluster.address}, which wants "
            f"{_token_came()}. {HOW_TO_GIVE_A_TOKEN}"
        )
    if came is not StatusCode.OK:
        raise ConnectionError(
            f"`{cluster.origin}` must be a running cluster, but got {cluster.address}, where no Ray answers within "
            f"{PROBE_S:.0f} s ({came.name}). Correct it, or leave the address out: the sweep then starts its own Ray."
        )


def _token_came() -> str:
    mode = os.environ.get(AUTH_MODE, "token")
    if mode.lower() != "token":
        return f"a token where {AUTH_MODE} is {mode!r}"
    has_one = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    return "another token than the one here" if has_one else "a token where there is none"


def _answer(address: str) -> StatusCode:
    """What a cluster's head says to a simple question, with the token where token authentication is on."""
    options = [("grpc.enable_http_proxy", 0)]
    try:
        return _ask(init_grpc_channel(address, options=options))
    except AuthenticationError:  # there is no token to ask with
        return _ask(grpc.insecure_channel(address, options=options))


def _ask(channel: grpc.Channel) -> StatusCode:
    try:
        NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=PROBE_S)
    except RpcError as error:
        code: StatusCode = error.code()
        return code
    finally:
        channel.close()
    return StatusCode.OK


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
        _start(folder, local_cpus(compute, os.cpu_count() or 1))
        try:
            with ray_watched():
                yield
        finally:
            ray.shutdown()


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
    own = Path(tempfile.mkdtemp(prefix="ray-", dir=_short_folder(usual)))
    if takes_files:  # its disk is the one to use; the kernel counts the bytes of the path that it is given
        (own / "ray").symlink_to(usual)
    try:
        yield own / "ray"
    finally:
        if takes_files:
            shutil.rmtree(own)


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
