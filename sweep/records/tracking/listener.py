"""Sends what happens to trials to MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED
from analysis.report import draw_rank_map
from analysis.run_folder import SAMPLES_SHEET
from analysis.studies.rank_history import RANKS, read_ranks
from sweep.records.tables import flat_choice
from sweep.records.tracking.tracker import Tracker
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion


class TrackingListener(TrialListener):
    """Sends every trial's events and files to MLflow, and to the parent run the best so far.

    Args:
        tracker: of the sweep.
        out: its run directory.
        objectives: of which the best is followed.
    """

    def __init__(self, tracker: Tracker, out: Path, objectives: Sequence[Objective] = ()) -> None:
        self._tracker, self._out, self._objectives = tracker, out, tuple(objectives)
        self._last: dict[str, Mapping[str, Any]] = {}
        self._best: dict[str, float] = {}
        self._num_completed = 0

    def on_start(self, suggestion: Suggestion) -> None:
        """Open the trial's run."""
        flat = flat_choice(suggestion.choice)
        self._tracker.trial(suggestion.trial_id, flat["strategy"], flat)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Record an epoch."""
        self._last[trial_id] = metrics
        self._tracker.report(trial_id, metrics["epoch"], metrics)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Record a smaller adapter of the trial's training as a run of its own."""
        flat = flat_choice(choice)
        self._tracker.trial(cut_id, flat["strategy"], flat, cut_of=trial_id)
        self.on_report(cut_id, metrics)

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Close the trial's run, with its adapter and samples where it completed."""
        folder, report = self._out / "trials" / trial_id, self._last.pop(trial_id, {})
        if end.kind != COMPLETED:
            self._tracker.end(trial_id, end)
            return
        self._tracker.end(trial_id, end, [folder / SAMPLES_SHEET, folder / "adapter", *drawn_ranks(folder)])
        self._num_completed += 1
        self._tracker.best(self._num_completed, self._best_with(report))

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """Record what the un-adapted base model scores."""
        self._tracker.baseline(scores)

    def _best_with(self, report: Mapping[str, Any]) -> dict[str, float]:
        for objective in self._objectives:
            better = min if objective.direction == "min" else max
            value, name = report.get(objective.name, math.nan), f"best_{objective.name}"
            if math.isfinite(value):
                self._best[name] = better(self._best.get(name, value), value)
        return dict(self._best)


def drawn_ranks(folder: Path) -> list[Path]:
    """A trial's ranks and a map of them, drawn now; nothing where no rank changed."""
    ranks, picture = folder / RANKS, folder / "ranks.png"
    if not ranks.is_file():
        return []
    draw_rank_map(read_ranks(ranks), picture)
    return [ranks, picture]
