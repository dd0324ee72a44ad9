"""The report of a sweep that runs, rewritten as its trials end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from analysis.report import write_report
from sweep.records.outbox import Outbox
from sweep.trials.ends import TrialEnd, TrialListener

SHARE: Final = 0.05
"""The most of the time that the page of a running sweep may take; one that takes longer is rewritten more seldom."""
CLOSE_S: Final = 2.0


class PageKeeper(TrialListener):
    """Rewrites the report in the background when a trial ends, unless it is being written, or took long just before.

    What goes wrong is left to the page of the finished sweep.

    Args:
        out: run directory, whose tables are those of the trial that ended.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._next_s = 0.0
        self._outbox = Outbox(lambda error: False, lambda error: None)

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Have the page rewritten."""
        if not self._outbox.num_waiting() and time.monotonic() >= self._next_s:
            self._outbox.submit(self._write)

    def close(self) -> None:
        """Wait, if not for long, for the page that is being written."""
        self._outbox.close(lambda: None, CLOSE_S)

    def _write(self) -> None:
        started_s = time.monotonic()
        try:
            write_report(self._out)
        finally:
            ended_s = time.monotonic()
            self._next_s = ended_s + (ended_s - started_s) / SHARE
