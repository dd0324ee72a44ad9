"""The cluster that a sweep is given, asked before it is joined: a light module, for it is asked before torch is imported."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

import grpc
from grpc import RpcError, StatusCode
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import get_ray_address_from_environment
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # its stub is older than it
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError

from sweep.config import ComputeConfig, ConfigError

ADDRESS: Final = "RAY_ADDRESS"
AUTH_MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_GIVE_A_TOKEN: Final = (
    "Copy the token that `ray get-auth-token` prints on the cluster into ~/.ray/auth_token, "
    f"or name its file in {TOKEN_PATH}."
)
PROBE_S: Final = 5.0


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and what said so: a setting or a variable.

    Attributes:
        address: HOST:PORT of its head.
        origin: `compute.address` or RAY_ADDRESS, for messages.
    """

    address: str
    origin: str


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
