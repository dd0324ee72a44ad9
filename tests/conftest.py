"""What all tests share: one thread a process, no deadline for examples, one Ray, and which test worker runs what."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partialmethod
from typing import TYPE_CHECKING

import pytest
import warm_python
from hypothesis import HealthCheck, settings
from patience import until

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; Ray's processes take it over

settings.register_profile(  # a busy one takes longer over an example, and over making one
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

RAY, PHANTOM, CLUSTER = "ray", "phantom", "tests/cluster"
"""Groups of tests that share what takes long to make, or hosts that each fill a machine; one test worker runs all of a group."""
FIRST = (
    RAY,
    "tests/contracts/test_strategies.py",
    PHANTOM,
    *(f"tests/contracts/{name}.py" for name in ("test_checkpoints", "test_extending", "test_adapter_readers")),
    *(f"tests/{name}.py" for name in ("sweep/test_evaluate", "sweep/test_describe", "trainables/test_trial")),
    *("tests/benchmarks/test_record_curves.py", "tests/trainables/datasets/test_real_tables.py"),
)
"""The groups that take longest, so that no test worker is left with one of them when the others have ended."""
_until_the_end = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Before test workers start, which are forked from the server and share it, as a run of pytest within a test does."""
    if sys.platform == "linux" and warm_python.VARIABLE not in os.environ:
        workers = config.getoption("tx", [])
        preloaded = (*warm_python.ENGINE, *(warm_python.OF_TESTS if workers else ()))
        _until_the_end.enter_context(warm_python.server(*preloaded))
        _until_the_end.enter_context(warm_python.serving(warm_python.PLAIN, *warm_python.OF_OTHERS))
        config.option.tx = [f"{worker}//python={shlex.join(warm_python.command())}" for worker in workers]


def pytest_unconfigure(config: pytest.Config) -> None:
    _until_the_end.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module together, and those of all modules that share Ray or the phantom's films."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if group_of(item) == RAY:
            item.add_marker(pytest.mark.ray)
        if group_of(item) == PHANTOM:
            item.add_marker(pytest.mark.slow)  # its films and the classifier trained on them take half a minute
    items.sort(key=lambda item: FIRST.index(group_of(item)) if group_of(item) in FIRST else len(FIRST))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the millions of objects of imported modules out of what is looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # what is not taken down at the end counts as leaked, and some libraries print that


@pytest.fixture(autouse=True)
def _no_test_ends_its_process() -> Iterator[None]:
    """Code that ends its process is tried in a child: here it would take along the tests that are still to come.

    `interruptible` leaves handlers that end the process at the next signal; they go with the test.
    """
    tests, leave = os.getpid(), os._exit

    def refused(status: int) -> None:
        if os.getpid() == tests and threading.current_thread() is threading.main_thread():
            raise AssertionError(f"os._exit({status}) must not end the tests' own process. Start a child for it.")
        leave(status)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", refused)
        yield
    for number, handler in before.items():
        if handler is not None:  # it is not Python's
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of the one Ray of a run of the tests, which is started as a sweep starts it."""
    import ray  # not above: tests without Ray do not wait for it
    import ray_worker
    from ray._private.parameter import RayParams

    from sweep.config import ComputeConfig
    from sweep.trials.runtime import ray_runtime

    quick = partialmethod(RayParams.__init__, setup_worker_path=ray_worker.__file__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayParams, "__init__", quick)
        with ray_runtime(ComputeConfig(concurrent_trials=2)):
            yield str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="module")
def ray_cluster(ray_address: str) -> Iterator[None]:
    """That Ray for the tests of a module. They leave no part of it held: the next module's find all of it free."""
    yield
    until(lambda: held_cpus() == 0)


@pytest.fixture(scope="session")
def finished(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The directory of a sweep over the four strategies, evaluated after each epoch, and what it printed."""
    from small_sweep import sweep_of  # not above: tests without Ray do not wait for its imports

    out = tmp_path_factory.mktemp("sweep") / "r1 100% [b]x? #3&it's;"
    return out, sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha")


@pytest.fixture(scope="session")
def out(finished: tuple[Path, Result]) -> Path:
    return finished[0]


def held_cpus() -> float:
    """CPUs that tasks and actors hold of the tests' Ray."""
    import ray

    return float(ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0.0))


def group_of(item: pytest.Item) -> str:
    """The name of the group that a test belongs to: its module, or what it shares with other modules."""
    fixtures = getattr(item, "fixturenames", ())
    if "ray_address" in fixtures:
        return RAY
    if item.nodeid.startswith(f"{CLUSTER}/"):
        return CLUSTER
    return PHANTOM if "phantom" in fixtures else item.nodeid.partition("::")[0]
