"""What is read of a label table is all kept: no garbage is looked for meanwhile, and afterwards as before."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainables.datasets.labels import FilmReader, FilmRow
from trainables.datasets.problems import CollectionError, Ledger
from trainables.datasets.rules import LabelRules


@dataclass(frozen=True, kw_only=True)
class Looking(FilmReader):
    """Notes whether garbage is looked for while it reads, and reads nothing, or fails."""

    seen: list[bool]
    fails: bool

    def rows(self, labels: Path, rules: LabelRules, ledger: Ledger) -> list[FilmRow]:
        self.seen.append(gc.isenabled())
        if self.fails:
            raise CollectionError("no table")
        return []


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_looked_for_while_labels_are_read(collects: bool, fails: bool) -> None:
    reader, before = Looking(seen=[], fails=fails), gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(CollectionError) if fails else nullcontext():
            reader.read(Path("table.csv"), reader.vocabulary({}), Ledger())
        assert reader.seen == [False] and gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
