"""Which trials of a run: its front or the knee of it, the best of a metric, the nearest to given values, or one by its id."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.checks import unknown_name
from analysis.features import split_metric
from analysis.front.statuses import FAILED, STOPPED
from analysis.run_folder import RunFolder

FRONT = "front"
WHERE: Final = re.compile(r"\s+where(?:\s+|$)", re.IGNORECASE)
AND: Final = re.compile(r"\s+and\s+", re.IGNORECASE)
RATIO: Final = 30
"""Where the largest value of a column is more than so many times the smallest, ratios are compared and not
differences."""
COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
PICKS = ("knee", "best:METRIC", "nearest:METRIC=VALUE", "trial:ID")
"""Each names one trial. `best:` may go on with conditions, and `nearest:` has one value or several."""
EXAMPLES: Final = (
    "As conditions: best:fid where epoch_s <= 60 and trainable_parameters <= 2e6; nearest:fid=8,epoch_s=60."
)
FINALIST_PICKS = (FRONT, *PICKS)
"""What names several trials at once: the whole front, or any of the others."""


def pick_finalists(run: RunFolder, picks: Sequence[str]) -> list[str]:
    """The ids of the trials that `picks` name, each once, in their order.

    Args:
        run: the finished run.
        picks: each one of `FINALIST_PICKS`.

    Raises:
        ValueError: A pick, metric or trial is unknown, or no trial qualifies.
    """
    trial_ids: list[str] = []
    for pick in picks:
        trial_ids += _front(run) if pick == FRONT else [pick_trial(run, pick, among=FINALIST_PICKS)]
    return list(dict.fromkeys(trial_ids))


def pick_trial(run: RunFolder, pick: str, among: Sequence[str] = PICKS) -> str:
    """The id of the trial that `pick` names.

    Metrics are named as in the trials' table, `fid_mini`, or without their extractor, `fid`.

    Args:
        run: the finished run.
        pick: `knee`; `best:METRIC`, which may go on with conditions, as in `best:fid where epoch_s <= 60`;
            `nearest:METRIC=VALUE,...`; `trial:ID`.
        among: what an unknown pick is answered with.

    Raises:
        ValueError: the pick, the metric or the trial is unknown, a value is no number, or no trial qualifies.
    """
    kind, _, name = pick.partition(":")
    if pick == "knee":
        return _knee(run)
    if kind == "best" and name.strip():
        return _best(run, name)
    if kind == "nearest" and name.strip():
        return _nearest(run, name)
    if kind == "trial" and name:
        return _trial(run, name)
    raise ValueError(unknown_name("--pick", pick, among))


def _front(run: RunFolder) -> list[str]:
    if not run.front.points:
        raise ValueError(
            "`front` must have a point, but got an empty front. Complete a trial that the un-adapted base does not beat in "
            "everything."
        )
    return [point.trial_id for point in run.front.points]


def _knee(run: RunFolder) -> str:
    if run.front.knee is None:
        why = run.front.knee_rule or "no trial completed"
        raise ValueError(
            f"`knee` must be a point of the Pareto front, but got none: {why}. Train more or other trials, or choose one "
            "yourself with --pick best:METRIC or trial:ID."
        )
    return run.front.knee.trial_id


def _best(run: RunFolder, text: str) -> str:
    """`METRIC`, or `METRIC where CONDITION and CONDITION`."""
    named, *conditions = WHERE.split(text, maxsplit=1)
    metric = _column(run, named, "--pick best:METRIC")
    rules = [_condition(run, condition) for joined in conditions for condition in AND.split(joined)]
    scored = run.completed().dropna(subset=[metric])
    if scored.empty:
        raise ValueError(
            f"`best:{metric}` must have a completed trial with that metric, but got none. Pick by another metric."
        )
    allowed = scored[[all(rule.holds(row) for rule in rules) for row in scored.to_dict("records")]]
    if allowed.empty:
        raise ValueError(f"`best:{metric}` must have a trial where {_unmet(scored, rules)}. Loosen a condition.")
    ascending = run.direction(metric) == "min"
    return str(allowed.sort_values(metric, ascending=ascending, kind="stable").iloc[0]["trial_id"])


@dataclass(frozen=True, kw_only=True)
class _Condition:
    """What a column of a trial must be."""

    column: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.bound:g}"

    def holds(self, row: dict[Any, Any]) -> bool:
        """Whether a trial fulfils it; one without a value does not."""
        return bool(COMPARISONS[self.sign](float(row[self.column]), self.bound))


def _condition(run: RunFolder, text: str) -> _Condition:
    parts = re.fullmatch(r"\s*([^<>=]*[^<>=\s])\s*(<=|>=|<|>)\s*(\S+)\s*", text)
    if parts is None:
        raise ValueError(
            f"`--pick best:METRIC where ...` must have conditions such as `epoch_s <= 60`, joined by `and`, but got "
            f"{text.strip()!r}. Compare with one of {', '.join(COMPARISONS)}."
        )
    column = _column(run, parts[1], "--pick best:METRIC where METRIC")
    return _Condition(column=column, sign=parts[2], bound=_number(parts[3], column))


def _unmet(scored: pd.DataFrame, rules: Sequence[_Condition]) -> str:
    """The conditions with what the trials have, for a message."""
    ranges = (
        f"{rule.column} {scored[rule.column].min():g} to {scored[rule.column].max():g}"
        for rule in {rule.column: rule for rule in rules}.values()
    )
    return f"{' and '.join(map(str, rules))}, but got {len(scored)} trials with {', '.join(ranges)}"


def _nearest(run: RunFolder, text: str) -> str:
    """The trial closest to the given values, each scaled to the span that completed trials have.

    Where these differ by more than a decade and a half, as numbers of parameters do, ratios are compared.
    """
    targets = [_target(run, part) for part in text.split(",")]
    wanted = dict(targets)
    if len(wanted) < len(targets):
        named = ", ".join(column for column, _ in targets)
        raise ValueError(f"`--pick nearest:` must have one value for each metric, but got {named}. Leave one out.")
    scored = run.completed().dropna(subset=list(wanted))
    if scored.empty:
        raise ValueError(f"`nearest:` must have a completed trial with {', '.join(wanted)}, but got none.")
    squares = [_distances(scored[column].to_numpy(np.float64), value) ** 2 for column, value in wanted.items()]
    return str(scored.iloc[int(np.argmin(np.sum(squares, axis=0)))]["trial_id"])


def _distances(values: NDArray[np.float64], wanted: float) -> NDArray[np.float64]:
    if min(values.min(), wanted) > 0 and values.max() / values.min() > RATIO:
        values, wanted = np.log(values), float(np.log(wanted))
    distances: NDArray[np.float64] = np.abs(values - wanted) / (np.ptp(values) or 1.0)
    return distances


def _target(run: RunFolder, text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(
            f"`--pick nearest:` must have values such as `fid=8,epoch_s=60`, but got {text.strip()!r}. Give each METRIC=VALUE."
        )
    column = _column(run, name, "--pick nearest:METRIC")
    return column, _number(value, column)


def _number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(
            f"`{column}` must be compared with a number, but got {text.strip()!r}. Write 60, 2e6 or 1_000."
        )
    return value


def _column(run: RunFolder, name: str, what: str) -> str:
    """The column of the trials that is meant: its own name, or a metric's without the extractor."""
    directed, asked = run.directed(), name.strip()
    if asked in directed:
        return asked
    matches = [column for column in directed if "/" not in column and split_metric(column)[0] == asked]
    if len(matches) != 1:
        raise ValueError(unknown_name(what, asked, directed))
    return matches[0]


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
