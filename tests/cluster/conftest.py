"""Two hosts and the desk of the person who makes a cluster of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import warm_python
from machines import obstacle
from sites import Site, start_site

NOT_FOR_HOSTS = "/ray/(rllib|llm|serve)/"


@pytest.fixture(scope="session")
def compiled() -> None:
    """What the engine and Ray import is compiled here, where all hosts see it; skips where there can be no hosts.

    Each host would spend half a minute on compiling it for itself, and that is all that Ray gives its processes to start.
    """
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    subprocess.run([*warm_python.command(), "-c", "pass"], check=True)
    compiling = [sys.executable, "-m", "compileall", "-qq", "-j", "0", "-x", NOT_FOR_HOSTS]
    subprocess.run([*compiling, *ray.__path__], check=True)


@pytest.fixture(scope="module")
def site(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    started = start_site(tmp_path_factory.mktemp("site"))
    yield started
    started.network.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Add what the hosts have logged to the report of a failure."""
    report = yield
    used = getattr(item, "funcargs", {}).get("site")
    if report.failed and used is not None:
        report.sections.append(("the hosts", "".join(host.last_words() for host in used.hosts)))
    return report
