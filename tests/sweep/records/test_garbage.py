"""Python's search for garbage is left out for as long as said, and no longer."""

from __future__ import annotations

import gc

import pytest

from sweep.records.garbage import without_collecting


@pytest.mark.parametrize("collects", [True, False])
def test_afterwards_it_is_as_before(collects: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with without_collecting():
            assert not gc.isenabled()
        assert gc.isenabled() == collects
        with pytest.raises(KeyError), without_collecting():
            raise KeyError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
