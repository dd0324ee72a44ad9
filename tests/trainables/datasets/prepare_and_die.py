"""Prepare a folder of films with its sheet and card, and die of SIGKILL at a moment that is told.

Arguments: the folder, where to, at which moment to die, and one of
- `no`: moments are reports of progress, of which the last comes when all is written;
- `wait`: films wait where they are prepared, and are reported as they are looked at, too;
- `names`: films wait, and moments are those at which their files get names, first one beside and then the last, split by split.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.prepare import add_sheet_and_card
from trainables.datasets import tensors, writing
from trainables.datasets.base import SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.store import PreparedDataset


def main(root: Path, to: Path, dies_at: int, moments: str) -> None:
    reached = itertools.count(1)

    def reach(kind: str) -> None:
        if (kind == "name") == (moments == "names") and next(reached) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def report(_: int) -> None:
        reach("report")

    def finish(prepared: PreparedDataset) -> None:
        add_sheet_and_card(prepared)
        report(0)

    tensors.BATCH_BYTES, writing.PROGRESS_EVERY = 20 * 64**2, 7
    options = SourceOptions(root=root, conditions=("No Finding",))
    if moments != "no":
        options = replace(options, scratch=to.parent, on_film=lambda *_: report(0))
    link, rename = os.link, os.replace

    def named_beside(*arguments: Any, **options: Any) -> None:
        reach("name")
        link(*arguments, **options)

    def named(*arguments: Any, **options: Any) -> None:
        if "src_dir_fd" in options:  # none of the other files that get other names
            reach("name")
        rename(*arguments, **options)

    os.link, os.replace = named_beside, named  # type: ignore[assignment]
    source = FolderSource.create(options)
    writing.write_dataset(source, to, on_progress=report, finish=finish)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
