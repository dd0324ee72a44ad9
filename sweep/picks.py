"""Which trials of a run: its front or the knee of it, the best of a metric, or one by its id."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.checks import unknown_name
from analysis.front.statuses import FAILED, STOPPED
from analysis.run_folder import RunFolder

FRONT = "front"
PICKS = ("knee", "best:METRIC", "trial:ID")
"""Each names one trial."""
FINALIST_PICKS = (FRONT, *PICKS)
"""Those of several trials at once, among which the whole front is one."""


def pick_finalists(run: RunFolder, picks: Sequence[str]) -> list[str]:
    """The ids of the trials that `picks` name, each once, in their order.

    Args:
        run: The finished run.
        picks: Each one of `FINALIST_PICKS`.

    Raises:
        ValueError: A pick, metric or trial is unknown, or no trial qualifies.
    """
    found: list[str] = []
    for pick in picks:
        found += _front(run) if pick == FRONT else [pick_trial(run, pick, among=FINALIST_PICKS)]
    return list(dict.fromkeys(found))


def pick_trial(run: RunFolder, pick: str, among: Sequence[str] = PICKS) -> str:
    """The id of the trial that `pick` names.

    Args:
        run: The finished run.
        pick: `knee`, `best:METRIC` or `trial:ID`.
        among: What an unknown pick is answered with.

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
    raise ValueError(unknown_name("--pick", pick, among))


def _front(run: RunFolder) -> list[str]:
    if not run.front.points:
        raise ValueError("`front` must have a point, but got an empty front. Complete a trial first.")
    return [point.trial_id for point in run.front.points]


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
