"""Two hosts and the desk of the person who makes a cluster of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import warm_python
from machines import obstacle
from sites import Site, start_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
    # What the engine imports is compiled here, where all hosts see it: each would spend 20 s on compiling it for itself.
    subprocess.run([*warm_python.command(), "-c", "pass"], check=True)
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
