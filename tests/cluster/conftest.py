"""Two hosts and the desk of the person who makes a cluster of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from machines import obstacle
from sites import Site, start_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    reason = obstacle()
    if reason is not None:
        pytest.skip(reason)
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
