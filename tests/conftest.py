"""What all tests share: one thread a process, no deadline for examples, and which test worker runs what."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; Ray's processes take it over

settings.register_profile("any machine", deadline=None)  # a busy one takes longer over an example
settings.load_profile("any machine")

RAY, PHANTOM = "ray", "phantom"
"""Groups of tests that share what takes long to make; one test worker runs all of a group."""
FIRST = (
    RAY,
    "tests/contracts/test_strategies.py",
    "tests/test_layout.py",
    PHANTOM,
    *(f"tests/{name}.py" for name in ("contracts/test_checkpoints", "contracts/test_extending", "sweep/test_evaluate")),
)
"""The groups that take longest, and a short one: with two workers the third waits behind Ray's for the first."""


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


def group_of(item: pytest.Item) -> str:
    """The name of the group that a test belongs to: its module, or what it shares with other modules."""
    fixtures = getattr(item, "fixturenames", ())
    if "ray_address" in fixtures:
        return RAY
    return PHANTOM if "phantom" in fixtures else item.nodeid.partition("::")[0]
