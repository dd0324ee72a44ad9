"""Python's search for garbage is left out for as long as said, and no longer."""

from __future__ import annotations

import gc

import pytest

from sweep.records.garbage import without_collecting


@pytest.mark.parametrize("collects", [True, False])
def test_afterwards_it_is_as_before_but_for_what_is_kept(collects: bool) -> None:
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if collects else gc.disable)()
    try:
        with without_collecting():
            kept = [[number] for number in range(1000)]
            assert not gc.isenabled()
        assert gc.isenabled() == collects
        assert gc.get_freeze_count() >= frozen + len(kept)
        with pytest.raises(KeyError), without_collecting():
            raise KeyError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
