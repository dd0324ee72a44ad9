"""How tests wait for what comes by itself: as long as a busy machine may take, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 300.0
"""Less than the ten minutes of a test, so that one that waits in vain says for what."""


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline_s, f"it must come within {LONG_S:g} s, but did not"
        time.sleep(0.02)
