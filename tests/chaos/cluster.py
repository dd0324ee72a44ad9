"""Clusters on this machine: of one node that many sweeps join, and of several, one of which dies. By Ray's own test tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster


@contextmanager
def one_node() -> Iterator[str]:
    """A node with room for evaluation and two trials; its address."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


@contextmanager
def several_nodes(head_cpus: int, others: int, *, replaced: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """A head, and other nodes of one CPU each.

    Args:
        head_cpus: of the head; evaluation takes one.
        others: how many.
        replaced: whether another one comes where one has died.

    Yields:
        The head's address, and a function by which one of the others dies.
    """
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cpus, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(others)]

    def lose() -> None:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        if replaced:
            nodes.append(cluster.add_node(num_cpus=1))

    try:
        yield str(cluster.address), lose
    finally:
        cluster.shutdown()
