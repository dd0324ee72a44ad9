"""Which trial of a run: the knee of its front, the best of a metric, or one by its id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.checks import unknown_name
from analysis.front.pareto import Direction, Front
from analysis.front.statuses import COMPLETED, FAILED, STOPPED, with_status
from analysis.metrics import METRICS
from sweep.config import COST_OBJECTIVES

PICKS = ("knee", "best:METRIC", "trial:ID")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run directory says of its trials."""

    folder: Path
    front: Front
    trials: pd.DataFrame
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run directory.

        Raises:
            FileNotFoundError: it is not the directory of a finished run.
        """
        for name in ("config.json", "pareto.json", "trials.parquet"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"`--run` must be the directory of a finished run, but got {str(folder)!r}, which has no {name}. "
                    "Give the directory that `python -m sweep.run` printed."
                )
        config = json.loads((folder / "config.json").read_text())
        trials = pd.read_parquet(folder / "trials.parquet")
        return cls(folder=folder, front=Front.read(folder / "pareto.json"), trials=trials, config=config)

    def adapter(self, trial_id: str) -> Path:
        """The adapter folder that a trial exported."""
        return self.folder / "trials" / trial_id / "adapter"

    def completed(self) -> pd.DataFrame:
        """The trials that ran to their end."""
        return with_status(self.trials, COMPLETED)

    def direction(self, metric: str) -> Direction | None:
        """Which way of a column is better, or none where it is no metric."""
        own = {objective.name: objective.direction for objective in self.front.objectives}
        of_kind = METRICS.get(metric.split("_")[0])
        return own.get(metric) or COST_OBJECTIVES.get(metric) or (of_kind.direction if of_kind else None)

    def metrics(self) -> list[str]:
        """The columns of which one can pick the best."""
        return [str(name) for name in self.trials.columns if self.direction(str(name)) is not None]


def pick_trial(run: Run, pick: str) -> str:
    """The id of the trial that `pick` names.

    Args:
        run: The finished run.
        pick: `knee`, `best:METRIC` or `trial:ID`.

    Raises:
        ValueError: the pick, the metric or the trial is unknown, or no trial qualifies.
    """
    kind, _, name = pick.partition(":")
    if pick == "knee":
        return _knee(run)
    if kind == "best" and name:
        return _best(run, name)
    if kind == "trial" and name:
        return _trial(run, name)
    raise ValueError(unknown_name("--pick", pick, PICKS))


def _knee(run: Run) -> str:
    if run.front.knee is None:
        raise ValueError("`knee` must be a point of the Pareto front, but got an empty front. Complete a trial first.")
    return run.front.knee.trial_id


def _best(run: Run, metric: str) -> str:
    direction = run.direction(metric)
    if metric not in run.trials.columns or direction is None:
        raise ValueError(unknown_name("--pick best:METRIC", metric, run.metrics()))
    scored = run.completed().dropna(subset=[metric])
    if scored.empty:
        raise ValueError(
            f"`best:{metric}` must have a completed trial with that metric, but got none. Pick by another metric."
        )
    return str(scored.sort_values(metric, ascending=direction == "min", kind="stable").iloc[0]["trial_id"])


def _trial(run: Run, trial_id: str) -> str:
    known = run.trials["trial_id"].astype(str)
    if trial_id not in set(known):
        raise ValueError(unknown_name("--pick trial:ID", trial_id, known))
    completed = run.completed()["trial_id"].astype(str)
    if trial_id not in set(completed):
        raise ValueError(
            f"`trial:ID` must be a completed trial, but got {trial_id!r}, which {_early_end(run, trial_id)}. "
            f"Pick one of {', '.join(completed) or 'none'}."
        )
    return trial_id


def _early_end(run: Run, trial_id: str) -> str:
    row = run.trials[run.trials["trial_id"].astype(str) == trial_id].iloc[0].to_dict()
    ends = {FAILED: "failed", STOPPED: f"was stopped at rung {row.get('rung')}"}
    return ends.get(row["status"], "has not ended")
