"""Where trials run, and what a sweep waits for on a cluster that is busy or grows, said from time to time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import ray
from ray._private.state import actors
from ray.util import placement_group_table

from sweep.trials.resources import EVALUATION, Node

LINE_S: Final = 30.0
"""How often it is said what is waited for."""
LOOK_S: Final = 5.0
LAST_S: Final = 10.0
"""Seconds that the end waits for a question to Ray's head that is under way: one that has died answers late or never. Nothing is
asked after that, since Ray ends a process that asks once its connection is closed, with exit code 1 and without a word."""


def nodes_of_cluster() -> list[Node]:
    """The nodes that are alive, with all that they have."""
    return [
        Node(node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def place_of(trial: Any) -> tuple[str, str] | None:
    """The id and address of the node where a trial of Tune's has its process; None where Ray's head does not tell."""
    with suppress(RuntimeError, ConnectionError, ray.exceptions.RayError):
        address = actors(trial.temporary_state.ray_actor._actor_id.hex()).get("Address", {})
        if address.get("NodeID"):
            return address["NodeID"], address["IPAddress"]
    return None


@contextmanager
def waiting_told(
    tell: Callable[[str], None], *, look: Callable[[], Sequence[str]] | None = None, line_s: float = LINE_S
) -> Iterator[None]:
    """Say in the block, every `line_s` seconds for which something waits for resources without a break, what does.

    Args:
        tell: takes a line; called in a thread of its own.
        look: gives what waits at this moment; by default, of this program's part of the Ray cluster.
        line_s: seconds.
    """
    ended = threading.Event()
    arguments = (tell, look or partial(waiting_here, ended), line_s, ended)
    thread = threading.Thread(target=_watch, args=arguments, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_S)


def _watch(
    tell: Callable[[str], None], look: Callable[[], Sequence[str]], line_s: float, ended: threading.Event
) -> None:
    since: float | None = None
    lines = 0
    while not ended.wait(min(LOOK_S, line_s / 4)):
        try:
            waits = look()
        except (RuntimeError, ConnectionError, ray.exceptions.RayError):
            continue  # a head that does not answer is told of by those who need it
        if not waits:
            since, lines = None, 0
            continue
        since = since or time.monotonic()
        waited_s = time.monotonic() - since
        if waited_s >= (lines + 1) * line_s and not ended.is_set():
            lines = int(waited_s // line_s)
            tell(f"waiting for {waited_s:.0f} s: {'; '.join(waits)}")


def waiting_here(ended: threading.Event) -> list[str]:
    """What of this program waits for resources of the cluster, and what is free there; empty where nothing waits.

    Args:
        ended: once it is set nobody wants to know, and nothing more is asked.
    """
    asked = _waiting_groups(ray.get_runtime_context().get_job_id())
    if not asked or ended.is_set():
        return []
    there, free = ray.cluster_resources(), ray.available_resources()
    room = " and ".join(
        f"{free.get(kind, 0.0):g} of {there[kind]:g} {kind}" for kind in ("CPU", "GPU") if kind in there
    )
    counted = [f"{count} x {what}" if count > 1 else what for what, count in Counter(asked).items()]
    return [*counted, f"{room or 'nothing'} free on {len(nodes_of_cluster())} nodes; others use the rest"]


def _waiting_groups(job: str) -> list[str]:
    """Bundles of trials, worker groups and evaluation actors; the identity of a placement group ends with its job's."""
    groups: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return [
        f"{'an evaluation actor' if group['name'].startswith(EVALUATION) else 'a trial'}'s "
        + " + ".join(_text(bundle) for bundle in group["bundles"].values())
        for name, group in groups.items()
        if group["state"] in ("PENDING", "RESCHEDULING") and name.endswith(job)
    ]


def _text(bundle: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}" for kind, amount in bundle.items())
