"""Python's search for garbage, which leaves out what a log holds."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

atexit.register(gc.unfreeze)  # what is not taken down at the end counts as leaked, and some libraries print that


@contextmanager
def without_collecting() -> Iterator[None]:
    """For code that keeps all that it makes, as from a log: no garbage is looked for among it, neither meanwhile nor later.

    What there is already when the block ends, such as imported modules, is left out of all later searches too, and so is garbage:
    this is for what happens once in a process, and not again and again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
