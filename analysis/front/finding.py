"""The front of a sweep's trials, with its knee and how sure it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.front.certainty import Noise, front_probabilities
from analysis.front.knee import knee_index, worth_it
from analysis.front.noise import Evidence, draw_noise
from analysis.front.objectives import COSTS, base_values
from analysis.front.pareto import (
    NEAR,
    PARAMETER_PREFIX,
    Direction,
    Front,
    FrontPoint,
    Objective,
    dominated,
    minimised,
    pareto_mask,
)
from analysis.front.statuses import COMPLETED, with_status

IDEAL = (
    "the point closest to the ideal one, which is best in every objective at once, each scaled to the span of the front"
)


def find_front(rows: pd.DataFrame, objectives: Sequence[Objective], evidence: Evidence | None = None) -> Front:
    """The front of a table of trials.

    Args:
        rows: one row a trial with `trial_id`, `strategy`, `param/...` and a column for each objective; where there is a
            column `status`, completed trials only are looked at.
        objectives: columns and directions.
        evidence: the un-adapted base model's scores, which make it a point too, and what tells how sure values are.

    Returns:
        The front, empty where no trial has all objectives or the base dominates all that have.

    Raises:
        ValueError: an objective is not a column of the table.
    """
    names = [objective.name for objective in objectives]
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise ValueError(f"`objectives` must be columns of the trials, but got {missing}; there are {list(rows)}.")
    done, evidence = _finite(with_status(rows, COMPLETED), names), evidence or Evidence()
    field = _Field(
        values=done[names].to_numpy(dtype=np.float64),
        objectives=tuple(objectives),
        base=base_values(evidence.baseline, objectives),
        noise=draw_noise(done, objectives, evidence) if len(done) else None,
    )
    on_front, probabilities, knee = field.on_front, field.probabilities(), field.knee()
    near = ~on_front & np.array([(p or 0.0) >= NEAR for p in probabilities], bool)
    shown: list[int] = np.flatnonzero(on_front | near).tolist()  # of thousands of trials the front shows a few
    points = {
        index: replace(
            _point(row, names), knee=index == knee, probability=probabilities[index], errors=field.errors(index)
        )
        for index, row in zip(shown, done.iloc[shown].to_dict("records"), strict=True)
    }
    chosen = [points[index] for index in shown if on_front[index]]
    chosen.sort(key=lambda point: point.values[names[0]], reverse=objectives[0].direction == "max")
    close = sorted((points[index] for index in shown if near[index]), key=lambda point: -(point.probability or 0.0))
    known = zip(done["trial_id"].astype(str), probabilities, strict=True)
    return Front(
        objectives=field.objectives,
        points=tuple(chosen),
        near=tuple(close),
        probabilities={trial_id: probability for trial_id, probability in known if probability is not None},
        base=field.base,
        knee_rule=field.knee_rule(knee),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Field:
    """Completed trials as float[n, m], the base beside them, and their noise."""

    values: NDArray[np.float64]
    objectives: tuple[Objective, ...]
    base: Mapping[str, float]
    noise: Noise | None

    @property
    def directions(self) -> list[Direction]:
        return [objective.direction for objective in self.objectives]

    def base_row(self) -> NDArray[np.float64] | None:
        return np.array([self.base[objective.name] for objective in self.objectives]) if self.base else None

    @cached_property
    def on_front(self) -> NDArray[np.bool_]:
        """Which trials nothing dominates, the base included."""
        mask, base = pareto_mask(self.values, self.directions), self.base_row()
        return mask if base is None else mask & ~dominated(self.values, base, self.directions)

    def probabilities(self) -> list[float | None]:
        if self.noise is None:
            return [None] * len(self.values)
        return list(map(float, front_probabilities(self.values, self.directions, self.noise, self.base_row())))

    def errors(self, index: int) -> dict[str, float]:
        """Standard errors of a trial's values."""
        if self.noise is None:
            return {}
        spread = self.noise.trials[:, index].std(axis=0, ddof=1)
        return {
            objective.name: float(error) for objective, error in zip(self.objectives, spread, strict=True) if error > 0
        }

    def measured(self) -> int | None:
        """The first objective that is a metric: the one in which an adapter must beat the base."""
        return next((index for index, objective in enumerate(self.objectives) if objective.name not in COSTS), None)

    def knee(self) -> int:
        """The proposed point's row, -1 where there is none."""
        on_front, base, index = self.on_front, self.base_row(), self.measured()
        if not on_front.any():
            return -1
        if base is None or index is None:
            return knee_index(self.values, self.directions, on_front)
        sign = minimised([[1.0]], [self.directions[index]])[0, 0]
        gains, errors = sign * (base[index] - self.values[:, index]), np.zeros(len(self.values))
        if self.noise is not None:
            errors = (self.noise.trials[:, :, index] - self.noise.base[:, None, index]).std(axis=0, ddof=1)
        worth = worth_it(gains, errors) & on_front
        finite = np.isfinite(base)
        with_base = np.vstack([self.values, np.where(finite, base, self.values.max(axis=0, initial=0.0))])
        return knee_index(with_base, self.directions, [*worth, False]) if worth.any() else -1

    def knee_rule(self, knee: int) -> str:
        index = self.measured()
        if not self.base or index is None:
            return IDEAL if knee >= 0 else ""
        name = self.objectives[index].name
        if knee < 0:
            return f"no trial of the front beats the un-adapted base in {name} by more than its error"
        return (
            f"{IDEAL}, among those that beat the un-adapted base in {name} by more than their error and by at least half of "
            "what the best one does"
        )


def _finite(done: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Trials that have every objective."""
    complete = np.isfinite(done[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)).all(axis=1)
    finite: pd.DataFrame = done.loc[complete]
    return finite


def _point(row: Mapping[Hashable, Any], names: Sequence[str]) -> FrontPoint:
    """A row of the trials' table as a point; parameters that its strategy does not have are left out."""
    params = {
        str(key).removeprefix(PARAMETER_PREFIX): _plain(value) for key, value in row.items() if _is_param(key, value)
    }
    return FrontPoint(
        trial_id=str(row["trial_id"]),
        strategy=str(row["strategy"]),
        values={name: float(row[name]) for name in names},
        params=params,
        knee=False,
    )


def _is_param(column: Hashable, value: Any) -> bool:
    return str(column).startswith(PARAMETER_PREFIX) and not pd.isna(value)


def _plain(value: Any) -> Any:
    """A value for JSON; whole numbers that a table with gaps holds as float become integers again."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
