"""Ray itself: the instance that a sweep runs on, and what its machine must have for it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from sweep.config import ComputeConfig, ConfigError

RAY_SETTINGS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Processes that were promised no GPU see none; else they would compute on GPUs promised to others."""


@contextmanager
def ray_runtime(compute: ComputeConfig) -> Iterator[None]:
    """Ray for the length of a sweep: the cluster at `compute.address` or in RAY_ADDRESS, else one on this machine.

    Args:
        compute: where to connect.

    Raises:
        ConfigError: this machine has too few GPUs.
        ConnectionError: no cluster is at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = compute.address or os.environ.get("RAY_ADDRESS")
    local = {"num_cpus": local_cpus(compute), "include_dashboard": False}
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    options = {"address": address, "runtime_env": {"env_vars": RAY_SETTINGS}} if address else local
    ray.init(log_to_driver=False, logging_level="ERROR", configure_logging=True, **options)
    try:
        if not address:  # a cluster may grow
            require_gpus(compute, ray.cluster_resources().get("GPU", 0.0))
        yield
    finally:
        ray.shutdown()


def require_gpus(compute: ComputeConfig, available: float) -> None:
    """Refuse a sweep that would wait for GPUs for ever: one trial must fit beside the evaluation actors.

    Raises:
        ConfigError: they ask for more than there are.
    """
    trial = compute.workers_per_trial * compute.gpus_per_worker
    evaluation = compute.evaluation_actors * compute.evaluation_gpus
    if trial + evaluation > available:
        raise ConfigError(
            f"`compute` must ask for no more GPUs than there are, but got {trial:g} for a trial and {evaluation:g} for "
            f"evaluation where there are {available:g}. Set compute.gpus_per_worker and compute.evaluation_gpus lower, "
            "to 0.5 each for one GPU, or give the compute.address of a cluster."
        )


def local_cpus(compute: ComputeConfig) -> int:
    """CPUs that a local Ray instance promises: all, and no fewer than the trials at once ask for."""
    training = compute.concurrent_trials * (compute.workers_per_trial * compute.cpus_per_worker + 0.01)
    return max(os.cpu_count() or 1, math.ceil(training + compute.evaluation_actors * compute.evaluation_cpus))
