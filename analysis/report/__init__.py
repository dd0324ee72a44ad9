"""The report of a sweep: plots and one self-contained page, rebuilt from what is on disk."""

from __future__ import annotations

from analysis.report.page import report_page, write_report
from analysis.report.plots import draw_front
from analysis.report.rank_map import draw_rank_map

__all__ = ["draw_front", "draw_rank_map", "report_page", "write_report"]
