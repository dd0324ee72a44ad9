"""A cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from patience import until
from ray._private.node import Node
from ray._private.parameter import RayParams


@contextmanager
def second_node(address: str, num_cpus: float, num_gpus: int = 0) -> Iterator[Node]:
    """Another node of the tests' Ray, on this machine."""
    settings = {"include_log_monitor": False, "node_manager_port": 0, "min_worker_port": 0, "max_worker_port": 0}
    size = {"num_cpus": num_cpus, "num_gpus": num_gpus, "object_store_memory": 100 * 2**20}
    node = Node(
        RayParams(gcs_address=address, **size, **settings), head=False, shutdown_at_exit=False, spawn_reaper=False
    )
    try:
        _wait_for(2)
        yield node
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=True)
        _wait_for(1)  # else the next test's processes may be started on it


def _wait_for(num_nodes: int) -> None:
    until(lambda: sum(known["Alive"] for known in ray.nodes()) == num_nodes)
