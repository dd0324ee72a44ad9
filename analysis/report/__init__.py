"""The report of a sweep: plots and one self-contained page, rebuilt from what is on disk."""

from __future__ import annotations

from analysis.report.page import write_report
from analysis.report.plots import draw_front

__all__ = ["draw_front", "write_report"]
