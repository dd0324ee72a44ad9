"""How far a sweep had come: the hypervolume of its front over finished trials and over the hours that they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.front.hypervolume import comparable, hypervolume, nadir
from analysis.front.pareto import Objective
from analysis.front.statuses import COMPLETED, with_status

SECONDS = ("epoch_s", "evaluation_s")
"""Columns of a report with the seconds for which the trial kept its place busy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """The front's hypervolume when each trial finished, in the order in which they did.

    Attributes:
        trial_ids: n trials with all objectives.
        hours: float[n], of training and evaluation of all trials until then, those that were stopped or failed included; a
            trial that has several workers counts once.
        volumes: float[n], hypervolume in units of the last one, or of an earlier one; never falls.
    """

    trial_ids: tuple[str, ...]
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
        as_of: completed trials whose front gives the reference point, and the unit; None: all of them.

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
        return History(trial_ids=(), hours=np.empty(0), volumes=np.empty(0))
    unit = min(as_of or len(values), len(values))
    reference = nadir(values[:unit], directions)
    volumes = np.array([hypervolume(values[: count + 1], directions, reference) for count in range(len(values))])
    return History(
        trial_ids=tuple(finished["trial_id"]),
        hours=finished["hours"].to_numpy(np.float64),
        volumes=volumes / volumes[unit - 1],
    )


def _ends(results: pd.DataFrame) -> pd.DataFrame:
    """The place of each trial's last report among all, and the hours that all trials had taken until then."""
    if not {"trial_id", SECONDS[0]} <= set(results.columns):
        return pd.DataFrame({"place": [], "hours": []}, index=pd.Index([], dtype="str", name="trial_id"))
    seconds = results.reindex(columns=list(SECONDS)).fillna(0.0).sum(axis=1)
    places = pd.DataFrame({"trial_id": results["trial_id"].astype(str), "hours": seconds.cumsum() / 3600})
    return places.assign(place=np.arange(len(places))).groupby("trial_id").last()
