"""Which trial of a run: the knee of its front, the best of a metric, or one by its id."""

from __future__ import annotations

from analysis.checks import unknown_name
from analysis.front.statuses import FAILED, STOPPED
from analysis.run_folder import RunFolder

PICKS = ("knee", "best:METRIC", "trial:ID")


def pick_trial(run: RunFolder, pick: str) -> str:
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


def _knee(run: RunFolder) -> str:
    if run.front.knee is None:
        raise ValueError("`knee` must be a point of the Pareto front, but got an empty front. Complete a trial first.")
    return run.front.knee.trial_id


def _best(run: RunFolder, metric: str) -> str:
    direction = run.direction(metric)
    if metric not in run.trials.columns or direction is None:
        raise ValueError(unknown_name("--pick best:METRIC", metric, run.directed()))
    scored = run.completed().dropna(subset=[metric])
    if scored.empty:
        raise ValueError(
            f"`best:{metric}` must have a completed trial with that metric, but got none. Pick by another metric."
        )
    return str(scored.sort_values(metric, ascending=direction == "min", kind="stable").iloc[0]["trial_id"])


def _trial(run: RunFolder, trial_id: str) -> str:
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


def _early_end(run: RunFolder, trial_id: str) -> str:
    row = run.trials[run.trials["trial_id"].astype(str) == trial_id].iloc[0].to_dict()
    ends = {FAILED: "failed", STOPPED: f"was stopped at rung {row.get('rung')}"}
    return ends.get(row["status"], "has not ended")
