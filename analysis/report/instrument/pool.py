"""The trials of one run, or of several over the same data, as one field with one front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.front.objectives import BASE
from analysis.front.pareto import Front, Objective
from analysis.run_folder import RunFolder

RUN = "run"
"""Column that says in which of the runs a trial was."""


def key(run: int, trial_id: str) -> str:
    """The name of a trial among several runs: two of one seed give the same names to their trials."""
    return f"{run}:{trial_id}"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Runs that are compared.

    Attributes:
        runs: the first is that whose page is made.
        trials: one row a trial; `trial_id` is its `key`, and `run` the place of its run.
        front: over all of them, by these keys.
    """

    runs: tuple[RunFolder, ...]
    trials: pd.DataFrame
    front: Front

    @classmethod
    def of(cls, runs: Sequence[RunFolder]) -> Pool:
        """Put runs together.

        Raises:
            ValueError: two of them differ in objectives, data or number of images, so that their values cannot be compared.
        """
        for other in runs[1:]:
            _require_comparable(runs[0], other)
        trials = pd.concat([_keyed(run.trials, place) for place, run in enumerate(runs)], ignore_index=True)
        front = find_front(trials, runs[0].front.objectives, _evidence(runs)) if len(runs) > 1 else _renamed(runs[0])
        return cls(runs=tuple(runs), trials=trials, front=front)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.front.objectives


def _keyed(table: pd.DataFrame, run: int) -> pd.DataFrame:
    """A table of trials or reports with keys in the place of names."""
    if table.empty:
        return table
    return table.assign(trial_id=[key(run, str(name)) for name in table["trial_id"]], **{RUN: run})


def _renamed(run: RunFolder) -> Front:
    """A run's own front by keys."""
    points, near = (
        tuple(replace(point, trial_id=key(0, point.trial_id)) for point in points)
        for points in (run.front.points, run.front.near)
    )
    shares = {key(0, name): share for name, share in run.front.probabilities.items()}
    return replace(run.front, points=points, near=near, probabilities=shares)


def _evidence(runs: Sequence[RunFolder]) -> Evidence:
    """What tells how sure the values of all runs are; the un-adapted base is that of the first."""
    resamples: dict[str, pd.DataFrame] = {}
    for place, run in enumerate(runs):
        tables = run.resamples()
        resamples |= {key(place, name): table for name, table in tables.items() if name != BASE}
        resamples |= {BASE: tables[BASE]} if place == 0 and BASE in tables else {}
    results = pd.concat([_keyed(run.results, place) for place, run in enumerate(runs)], ignore_index=True)
    return Evidence(baseline=runs[0].baseline, resamples=resamples, results=results)


def _require_comparable(first: RunFolder, other: RunFolder) -> None:
    for what, ours, theirs in (
        ("objectives", first.front.objectives, other.front.objectives),
        ("data", first.data_fingerprint(), other.data_fingerprint()),
        ("images per condition", _images(first.config), _images(other.config)),
    ):
        if ours != theirs or ours is None:
            raise ValueError(
                f"`--with` must be runs of the same {what} as {str(first.folder)!r}, but got {str(other.folder)!r} with "
                f"{_short(theirs)} beside {_short(ours)}. Make a page for each."
            )


def _images(config: Mapping[str, Any]) -> Any:
    return config.get("evaluation", {}).get("images_per_condition", "as many as by default")


def _short(value: Any) -> str:
    return (
        ", ".join(objective.name for objective in value)
        if isinstance(value, tuple)
        else f"{value or 'none known'}"[:80]
    )
