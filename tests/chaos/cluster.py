"""Clusters on this machine: of one node that many sweeps join, and of two, one of which dies. By Ray's own test tool."""

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
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """A head that has room for evaluation alone, and a node for a trial.

    Yields:
        The head's address, and a function by which the second node dies and a third comes.
    """
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1)]

    def lose() -> None:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))

    try:
        yield str(cluster.address), lose
    finally:
        cluster.shutdown()
