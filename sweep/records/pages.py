"""The report of a sweep that runs, rewritten as its trials end."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from analysis.files import whole_file
from analysis.report import report_page
from analysis.run_folder import REPORT
from sweep.trials.ends import TrialEnd, TrialListener

SHARE: Final = 0.05
"""The largest share of the time that writing the page of a running sweep may take; a slow page is rewritten more
seldom."""


class PageKeeper(TrialListener):
    """Rewrites the report in the background when a trial ends, unless it is being written, or took long just before.

    What goes wrong is left to the page of the finished sweep, and what takes seconds too: what objectives depend on.

    Args:
        out: run directory, whose tables are those of the trial that ended.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._next_s = 0.0
        self._writer: threading.Thread | None = None
        self._placing, self._is_closed = threading.Lock(), False

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Have the page rewritten."""
        is_busy = self._writer is not None and self._writer.is_alive()
        if not is_busy and time.monotonic() >= self._next_s:
            self._writer = threading.Thread(target=self._write, name="page", daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Leave `report.html` as it is from now on; a page that is being made is not waited for, and is dropped."""
        with self._placing:
            self._is_closed = True

    def _write(self) -> None:
        started_s = time.monotonic()
        with suppress(Exception):
            content = report_page(self._out, with_importances=False)
            with self._placing:
                if not self._is_closed:
                    with whole_file(self._out / REPORT) as file:
                        file.write(content.encode())
        ended_s = time.monotonic()
        self._next_s = ended_s + (ended_s - started_s) / SHARE
