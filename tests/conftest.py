"""What all tests share: one thread a process, no deadline for examples, and which test worker runs what."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; Ray's processes take it over

settings.register_profile("any machine", deadline=None)  # a busy one takes longer over an example
settings.load_profile("any machine")

RAY, CLASSIFIER = "ray", "classifier"
"""Groups of tests that share what takes long to make; one test worker runs all of a group."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module together, and those of all modules that share Ray or the trained classifier."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if group_of(item) == RAY:
            item.add_marker(pytest.mark.ray)
    items.sort(key=lambda item: group_of(item) != RAY)  # it takes longest; all others keep their order


def group_of(item: pytest.Item) -> str:
    """The name of the group that a test belongs to: its module, or what it shares with other modules."""
    fixtures = getattr(item, "fixturenames", ())
    if "ray_address" in fixtures:
        return RAY
    return CLASSIFIER if "classifier" in fixtures else item.nodeid.partition("::")[0]
