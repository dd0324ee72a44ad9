"""Prepare a folder of films with its sheet and card, and die of SIGKILL at a moment that is told.

Arguments: the folder, where to, at which report of progress to die, and whether films wait where it is prepared: they are reported
then too, as they are looked at. The last report comes when all is written.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from sweep.prepare import add_sheet_and_card
from trainables.datasets import tensors, writing
from trainables.datasets.base import SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.store import PreparedDataset


def main(root: Path, to: Path, dies_at: int, *, wait: bool) -> None:
    reports = itertools.count(1)

    def report(_: int) -> None:
        if next(reports) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(prepared: PreparedDataset) -> None:
        add_sheet_and_card(prepared)
        report(0)

    tensors.BATCH_BYTES, writing.PROGRESS_EVERY = 20 * 64**2, 7
    options = SourceOptions(root=root, conditions=("No Finding",))
    if wait:
        options = replace(options, scratch=to.parent, on_film=lambda *_: report(0))
    source = FolderSource.create(options)
    writing.write_dataset(source, to, on_progress=report, finish=finish)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), wait=sys.argv[4] == "wait")
