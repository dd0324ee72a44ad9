"""The tables of a run, built from its events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.front.pareto import PARAMETER_PREFIX, Front, Objective, front
from analysis.front.statuses import COMPLETED, RUNNING
from sweep.trials.ends import TrialEnd, TrialListener

COLUMNS = ("trial_id", "number", "status", "reason", "rung", "cut_of", "strategy")


class Tables(TrialListener):
    """One row a trial or cut, and one row a report."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        """Start empty; `objectives` are columns of the trials' table, whether or not a trial has them."""
        self._objectives = tuple(objectives)
        self._trials: dict[str, dict[str, Any]] = {}
        self._results: list[dict[str, Any]] = []
        self.baseline: Mapping[str, float] = {}

    def on_start(self, trial_id: str, choice: Mapping[str, Any]) -> None:
        """Add the trial's row."""
        number = sum(row["cut_of"] is None for row in self._trials.values())
        self._trials[trial_id] = _row(trial_id, number, RUNNING) | _chosen(choice)

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Add the report's row; its numbers are the trial's until the next report."""
        self._results.append({"trial_id": trial_id, **metrics})
        self._trials[trial_id].update(metrics)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Add a completed row of its own under the trial's number."""
        row = _row(cut_id, self._trials[trial_id]["number"], COMPLETED)
        self._trials[cut_id] = {**row, "cut_of": trial_id, **_chosen(choice), **metrics}

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Say in the trial's row how it ended."""
        self._trials[trial_id].update(status=end.kind, reason=end.reason, rung=end.rung)

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """Keep what the un-adapted base model scores."""
        self.baseline = scores

    def running(self) -> list[str]:
        """Trials that have not ended."""
        return [trial_id for trial_id, row in self._trials.items() if row["status"] == RUNNING]

    def evaluation_s(self) -> float:
        """Seconds that trials have waited for evaluations, cuts' and early ones included."""
        cuts = [row for row in self._trials.values() if row["cut_of"] is not None]
        return float(sum(row.get("evaluation_s", 0.0) for row in [*self._results, *cuts]))

    def front(self) -> Front:
        """The completed trials that no other beats."""
        return front(self._rows(), self._objectives)

    def trials(self) -> pd.DataFrame:
        """One row a trial or cut, with a column for every objective and whether it is on the front and its knee."""
        rows, found = self._rows(), self.front()
        members = {point.trial_id for point in found.points}
        knee = {found.knee.trial_id} if found.knee else set()
        return rows.assign(pareto=rows["trial_id"].isin(members), knee=rows["trial_id"].isin(knee))

    def results(self) -> pd.DataFrame:
        """One row a report."""
        return pd.DataFrame(self._results, columns=None if self._results else ["trial_id"])

    def _rows(self) -> pd.DataFrame:
        table = pd.DataFrame(list(self._trials.values()), columns=None if self._trials else list(COLUMNS))
        for objective in self._objectives:
            if objective.name not in table:
                table[objective.name] = np.nan
        return table.astype({"rung": "Int64"})


def flat_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A search space's suggestion with the strategy's name under `strategy` and its fields beside lr and batch size."""
    fields = {name: _as_text(value) for name, value in choice["strategy"].items()}
    return {"strategy": fields.pop("name"), **fields, **{key: choice[key] for key in choice if key != "strategy"}}


def _row(trial_id: str, number: int, status: str) -> dict[str, Any]:
    return {"trial_id": trial_id, "number": number, "status": status, "reason": None, "rung": None, "cut_of": None}


def _chosen(choice: Mapping[str, Any]) -> dict[str, Any]:
    """What the search sampler chose as columns of the trials' table."""
    flat = flat_choice(choice)
    params = {f"{PARAMETER_PREFIX}{name}": value for name, value in flat.items() if name != "strategy"}
    return {"strategy": flat["strategy"], **params}


def _as_text(value: Any) -> Any:
    """Several values in one cell of a table."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
