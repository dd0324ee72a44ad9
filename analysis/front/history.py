"""How far a sweep had come: the hypervolume of its front over finished trials and over the hours that they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.front.hypervolume import comparable, hypervolume, nadir
from analysis.front.pareto import Direction, Objective, pareto_mask
from analysis.front.statuses import COMPLETED, with_status

SECONDS = ("epoch_s", "evaluation_s")
"""Columns of a report with the seconds for which the trial kept its place busy."""
MOST_POINTS: Final = 200
"""Places in a long sweep at which the hypervolume is taken; each takes up to tens of milliseconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """The front's hypervolume when trials finished, in the order in which they did: all, or of a long sweep evenly spaced ones.

    Attributes:
        trial_ids: n trials with all objectives.
        counts: int[n], how many had finished then, this one included; the last is of all.
        hours: float[n], of training and evaluation of all trials until then, those that were stopped or failed included; a
            trial that has several workers counts once.
        volumes: float[n], hypervolume in units of the last one, or of an earlier one; never falls.
    """

    trial_ids: tuple[str, ...]
    counts: NDArray[np.int64]
    hours: NDArray[np.float64]
    volumes: NDArray[np.float64]


def hypervolume_history(
    trials: pd.DataFrame, results: pd.DataFrame, objectives: Sequence[Objective], *, as_of: int | None = None
) -> History:
    """Follow the hypervolume of completed trials.

    The reference point is the nadir of the last front, moved outwards by a tenth; costs count by their logarithms.

    Args:
        trials: one row a trial, with `trial_id` and a column for each objective.
        results: one row a report, in the order in which they came, with `trial_id`, `epoch_s` and, where there was an
            evaluation, `evaluation_s`.
        objectives: of the sweep.
        as_of: completed trials with all objectives whose front gives the reference point, and the unit; None: all of them.

    Returns:
        The history, empty where no trial has all objectives.
    """
    names, directions = [objective.name for objective in objectives], [objective.direction for objective in objectives]
    done = with_status(trials, COMPLETED)
    ends = _ends(results)
    finished = done.assign(trial_id=done["trial_id"].astype(str)).join(ends, on="trial_id", how="inner")
    finished = finished.sort_values("place", kind="stable")
    values = comparable(finished[names], objectives)
    complete = np.flatnonzero(np.isfinite(values).all(axis=1))
    finished, values = finished.iloc[complete], values[complete]
    if not len(values):
        return History(trial_ids=(), counts=np.empty(0, np.int64), hours=np.empty(0), volumes=np.empty(0))
    unit = min(as_of or len(values), len(values))
    spaced = np.linspace(1, len(values), min(len(values), MOST_POINTS)).round().astype(np.int64)
    counts = np.union1d(spaced, unit)
    volumes = _volumes(values, counts, directions, nadir(values[:unit], directions))
    return History(
        trial_ids=tuple(finished["trial_id"].iloc[counts - 1]),
        counts=counts,
        hours=finished["hours"].to_numpy(np.float64)[counts - 1],
        volumes=volumes / volumes[np.searchsorted(counts, unit)],
    )


def _volumes(
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    directions: Sequence[Direction],
    reference: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The hypervolume of the first rows, as many as each count says; where the front is the same, it is not taken again."""
    front, before, volume, volumes = values[:0], 0, 0.0, []
    for count in counts:
        candidates = np.concatenate([front, values[before:count]])
        mask = pareto_mask(candidates, directions)
        if mask[len(front) :].any():
            volume = hypervolume(candidates[mask], directions, reference)
        front, before = candidates[mask], int(count)
        volumes.append(volume)
    return np.array(volumes)


def _ends(results: pd.DataFrame) -> pd.DataFrame:
    """The place of each trial's last report among all, and the hours that all trials had taken until then."""
    if not {"trial_id", SECONDS[0]} <= set(results.columns):
        return pd.DataFrame({"place": [], "hours": []}, index=pd.Index([], dtype="str", name="trial_id"))
    seconds = results.reindex(columns=list(SECONDS)).fillna(0.0).sum(axis=1)
    places = pd.DataFrame({"trial_id": results["trial_id"].astype(str), "hours": seconds.cumsum() / 3600})
    return places.assign(place=np.arange(len(places))).groupby("trial_id").last()
