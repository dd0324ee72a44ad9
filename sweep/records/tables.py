"""The tables of a run, built from its events alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.front.pareto import PARAMETER_PREFIX, Front, Objective
from analysis.front.statuses import RUNNING, EndKind
from sweep.trials.earlier import EarlierSweep
from sweep.trials.ends import TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

COLUMNS = ("trial_id", "number", "status", "reason", "rung", "cut_of", "strategy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """How many trials of a sweep have ended, and how many of them completed, cuts apart; and what it knows of earlier ones.

    Attributes:
        num_ended: trials that completed, were stopped or failed.
        num_completed: those of them that were trained to their end with every objective.
        earlier: the earlier sweeps that it has read.
    """

    num_ended: int = 0
    num_completed: int = 0
    earlier: tuple[EarlierSweep, ...] = ()

    @property
    def num_earlier(self) -> int:
        """How many earlier sweeps it has read."""
        return len(self.earlier)


class Tables(TrialListener):
    """One row a trial or cut, and one row a report."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        """Start empty; `objectives` are columns of the trials' table, whether or not a trial has them."""
        self._objectives = tuple(objectives)
        self._trials: dict[str, dict[str, Any]] = {}
        self._results: list[dict[str, Any]] = []
        self.baseline: Mapping[str, float] | None = None
        """The un-adapted base model's scores: empty where it could not be scored, None where it was not scored yet."""
        self.earlier: list[EarlierSweep] = []
        """What earlier sweeps know; none of it is in the tables."""

    def on_earlier(self, sweep: EarlierSweep) -> None:
        """Keep it apart."""
        self.earlier.append(sweep)

    def on_start(self, suggestion: Suggestion) -> None:
        """Add the trial's row."""
        row = _row(suggestion.trial_id, suggestion.number, RUNNING) | _chosen(suggestion.choice)
        self._trials[suggestion.trial_id] = row

    def on_report(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Add the report's row; its numbers are the trial's until the next report.

        A trial that went on from a checkpoint reports some epochs anew: what stood of them and of later ones goes.
        """
        if metrics["epoch"] <= self._trials[trial_id].get("epoch", -1):
            self._roll_back(trial_id, metrics["epoch"])
        self._results.append({"trial_id": trial_id, **metrics})
        self._trials[trial_id].update(metrics)

    def _roll_back(self, trial_id: str, epoch: int) -> None:
        """Forget an epoch of a trial and all after it."""
        self._results = [row for row in self._results if row["trial_id"] != trial_id or row["epoch"] < epoch]
        row = self._trials[trial_id]
        self._trials[trial_id] = {
            name: value for name, value in row.items() if name in COLUMNS or name.startswith(PARAMETER_PREFIX)
        }
        for earlier in self._results:
            if earlier["trial_id"] == trial_id:
                self._trials[trial_id].update(earlier)

    def on_cut(self, cut_id: str, trial_id: str, choice: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Add a row of its own under the trial's number."""
        row = _row(cut_id, self._trials[trial_id]["number"], RUNNING)
        self._trials[cut_id] = {**row, "cut_of": trial_id, **_chosen(choice), **metrics}

    def on_end(self, trial_id: str, end: TrialEnd) -> None:
        """Say in the trial's row how it ended."""
        self._trials[trial_id].update(status=end.kind, reason=end.reason, rung=end.rung)

    def on_baseline(self, scores: Mapping[str, float]) -> None:
        """Keep what the un-adapted base model scores."""
        self.baseline = scores

    def running(self) -> list[str]:
        """Trials and cuts that have not ended."""
        return [trial_id for trial_id, row in self._trials.items() if row["status"] == RUNNING]

    def num_ended(self, *statuses: EndKind) -> int:
        """How many trials have ended, cuts apart; where statuses are named, by one of them."""
        ended = [row["status"] for row in self._trials.values() if row["cut_of"] is None and row["status"] != RUNNING]
        return sum(status in (statuses or ended) for status in ended)

    def evaluation_s(self) -> float:
        """Seconds that trials have waited for evaluations, cuts' and early ones included."""
        cuts = [row for row in self._trials.values() if row["cut_of"] is not None]
        return float(sum(row.get("evaluation_s", 0.0) for row in [*self._results, *cuts]))

    def front(self, resamples: Mapping[str, pd.DataFrame] | None = None) -> Front:
        """The completed trials that neither another one nor the un-adapted base beats.

        Args:
            resamples: what values might as well have been, by trial; without them the front does not know how sure it is.
        """
        evidence = Evidence(baseline=self.baseline, resamples=resamples or {}, results=self.results())
        return find_front(self._rows(), self._objectives, evidence)

    def trials(self, front: Front | None = None) -> pd.DataFrame:
        """One row a trial or cut, in the order of their suggestions.

        There is a column for every objective, for whether it is on the front and its knee, and for the probability that it
        belongs to the front.

        Args:
            front: their front, where it has been found already.
        """
        rows, front = self._rows(), front or self.front()
        members = {point.trial_id for point in front.points}
        knee = {front.knee.trial_id} if front.knee else set()
        return rows.assign(
            pareto=rows["trial_id"].isin(members),
            knee=rows["trial_id"].isin(knee),
            front_probability=rows["trial_id"].map(front.probabilities).astype("float64"),
        )

    def ended(self) -> list[str]:
        """Trials and cuts that have ended."""
        return [trial_id for trial_id, row in self._trials.items() if row["status"] != RUNNING]

    def results(self) -> pd.DataFrame:
        """One row a report."""
        return pd.DataFrame(self._results, columns=None if self._results else ["trial_id"])

    def _rows(self) -> pd.DataFrame:
        table = pd.DataFrame(list(self._trials.values()), columns=None if self._trials else list(COLUMNS))
        for objective in self._objectives:
            if objective.name not in table:
                table[objective.name] = np.nan
        return table.astype({"rung": "Int64"}).sort_values("number", kind="stable", ignore_index=True)


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
