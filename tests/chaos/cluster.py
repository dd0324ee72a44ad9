"""A cluster of two nodes on this machine, one of which dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster


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
