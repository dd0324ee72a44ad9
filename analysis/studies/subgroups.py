"""Figures of subgroups of patients, by sex, age band and view, and the largest gap between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.metrics import METRICS, bootstrap_interval
from analysis.studies.decisions import Scored, area_under_curve
from analysis.studies.fidelity import CONFIDENCE, MIN_FILMS, MIN_PATIENTS

AGE_BANDS = (18, 40, 60, 80)
"""Ages in years at which a band ends and the next begins."""
SEX_WORDS = {"F": "female", "M": "male"}
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of a group with its 95 % interval over patients.

    Attributes:
        value: the figure, of the group's films.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest difference between two groups, at least 0.

    Attributes:
        value: how much larger the one figure is, at least 0.
        low: lower end of its interval, which may be below 0: then there may be none.
        high: upper end of that interval.
        groups: the one with the larger figure first.
    """

    value: float
    low: float
    high: float
    groups: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Patients:
    """Who films are of, where known.

    Attributes:
        ids: whose each film is.
        sexes: "F", "M" or None.
        ages: in years, or None.
        views: such as "PA", or None.
    """

    ids: NDArray[np.str_]
    sexes: Sequence[str | None]
    ages: Sequence[int | None]
    views: Sequence[str | None]

    def groups(self) -> dict[str, dict[str, Rows]]:
        """Rows of the films of each group, by what divides them: `sex`, `age` and `view`."""
        labels: dict[str, list[str | None]] = {
            "sex": [None if sex is None else SEX_WORDS.get(sex, sex) for sex in self.sexes],
            "age": [None if age is None else age_band(age) for age in self.ages],
            "view": list(self.views),
        }
        return {name: _rows_by(values) for name, values in labels.items()}

    def take(self, rows: Sequence[int] | Rows) -> Patients:
        """The patients of some films."""
        picked = [int(row) for row in rows]
        return Patients(
            self.ids[picked],
            [self.sexes[row] for row in picked],
            [self.ages[row] for row in picked],
            [self.views[row] for row in picked],
        )


def age_band(age: int) -> str:
    """The band of an age: `0-17`, `18-39`, `40-59`, `60-79` or `80+`."""
    edges = (0, *AGE_BANDS)
    at = max(place for place, edge in enumerate(edges) if age >= edge)
    return f"{edges[at]}-{edges[at + 1] - 1}" if at + 1 < len(edges) else f"{edges[at]}+"


def _rows_by(labels: Sequence[str | None]) -> dict[str, Rows]:
    names = sorted({name for name in labels if name is not None}, key=lambda name: name.split("-")[0].zfill(3))
    return {name: np.array([row for row, label in enumerate(labels) if label == name], np.int64) for name in names}


@dataclass(frozen=True, kw_only=True)
class Subgroups:
    """A figure of all groups.

    Attributes:
        estimates: by what divides them and group; without those that are too small.
        gaps: the largest between the groups of each division that has two.
        too_few: films and patients of groups too small for an interval.
    """

    estimates: Mapping[str, Mapping[str, Estimate]]
    gaps: Mapping[str, Gap]
    too_few: Mapping[str, tuple[int, int]]

    def named(self, figure: str) -> dict[str, float]:
        """The numbers as results name them: `subgroup_kid/sex female`, `subgroup_kid_gap_low/sex`, ..."""
        values: dict[str, float] = {}
        for division, groups in self.estimates.items():
            for name, estimate in groups.items():
                values |= _ends(f"subgroup_{figure}", f"{division} {name}", estimate)
        for division, gap in self.gaps.items():
            values |= _ends(f"subgroup_{figure}_gap", division, gap)
        return values

    def details(self) -> dict[str, Any]:
        """What else belongs to them, as JSON has it."""
        return {
            "too_few": {
                name: {"films": films, "patients": patients} for name, (films, patients) in self.too_few.items()
            },
            "gaps_between": {division: list(gap.groups) for division, gap in self.gaps.items()},
        }


def _ends(key: str, rest: str, estimate: Estimate | Gap) -> dict[str, float]:
    return {f"{key}/{rest}": estimate.value, f"{key}_low/{rest}": estimate.low, f"{key}_high/{rest}": estimate.high}


def subgroups(patients: Patients, estimate: Callable[[Rows], Estimate | None]) -> Subgroups:
    """A figure of each group that has at least 20 films of 20 patients.

    Args:
        patients: of all films.
        estimate: the figure of some of them; None where it has none, for example as all films show a condition.
    """
    estimates: dict[str, dict[str, Estimate]] = {}
    too_few: dict[str, tuple[int, int]] = {}
    for division, groups in patients.groups().items():
        for name, rows in groups.items():
            count = len(rows), len(np.unique(patients.ids[rows]))
            result = estimate(rows) if count[0] >= MIN_FILMS and count[1] >= MIN_PATIENTS else None
            if result is None:
                too_few[f"{division} {name}"] = count
            else:
                estimates.setdefault(division, {})[name] = result
    gaps = {division: largest_gap(groups) for division, groups in estimates.items() if len(groups) > 1}
    return Subgroups(estimates=estimates, gaps=gaps, too_few=too_few)


def largest_gap(groups: Mapping[str, Estimate]) -> Gap:
    """The largest difference between two of at least two groups, taken as of different patients.

    Its interval holds for all differences at once, so that choosing the largest is paid for (Bonferroni).
    """
    pairs = list(combinations(groups, 2))
    first, second = max(pairs, key=lambda pair: abs(groups[pair[0]].value - groups[pair[1]].value))
    large, small = sorted((first, second), key=lambda name: -groups[name].value)
    value = groups[large].value - groups[small].value
    single, joint = (NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / count) for count in (1, len(pairs)))
    half = joint / single * math.hypot(_half(groups[large]), _half(groups[small]))
    return Gap(value=value, low=value - half, high=value + half, groups=(large, small))


def _half(estimate: Estimate) -> float:
    """Half the width of an interval; of one that was cut where its figure ends, by the side that was not."""
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def over_patients(
    statistic: Callable[[Rows], float], rows: Rows, ids: NDArray[np.str_], *, num_resamples: int = 200, seed: int = 0
) -> Estimate:
    """A statistic of some films with its normal interval from resampled patients, all of whose films come or go together.

    Args:
        statistic: of rows, which may be there several times; NaN where it has no value.
        rows: int64[n].
        ids: whose each film is, of all films.
        num_resamples: how many.
        seed: of the draws.

    Source: Field and Welsh 2007, the cluster bootstrap.
    """
    rng = np.random.default_rng(seed)
    by_patient = [rows[ids[rows] == name] for name in np.unique(ids[rows])]
    drawn = [
        np.concatenate([by_patient[at] for at in rng.integers(0, len(by_patient), len(by_patient))])
        for _ in range(num_resamples)
    ]
    spread = float(np.nanstd([statistic(sample) for sample in drawn], ddof=1))
    value, half = statistic(rows), NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * spread
    return Estimate(value=value, low=value - half, high=value + half)


def kid_by_group(
    generated: NDArray[Any], real: NDArray[Any], patients: Patients, *, num_resamples: int = 200
) -> Subgroups:
    """Kernel distance of films generated for a group's captions to its real films; lower is better.

    It is unbiased, so that groups of different sizes compare; a Fréchet distance would favour the larger.

    Args:
        generated: float[n, d], of the same captions as the real ones.
        real: float[n, d].
        patients: of the real films.
        num_resamples: random halves behind each interval.
    """

    def estimate(rows: Rows) -> Estimate:
        interval = bootstrap_interval(
            METRICS["kid"].fn, generated[rows], real[rows], groups=patients.ids[rows], num_resamples=num_resamples
        )
        return Estimate(value=interval.value, low=interval.low, high=interval.high)

    return subgroups(patients, estimate)


def share_by_group(holds: NDArray[np.bool_], patients: Patients) -> Subgroups:
    """Share of a group's films that something is true of, in [0, 1].

    Args:
        holds: bool[n].
        patients: whose films they are, or whose captions they were generated for.
    """

    def estimate(rows: Rows) -> Estimate:
        interval = over_patients(lambda chosen: float(holds[chosen].mean()), rows, patients.ids)
        return Estimate(value=interval.value, low=max(interval.low, 0.0), high=min(interval.high, 1.0))

    return subgroups(patients, estimate)


def auc_by_group(scored: Sequence[Scored], patients: Patients) -> Subgroups:
    """Mean area under the curve of a group's films, over conditions and classifiers, in [0, 1]; higher is better.

    Conditions that all films of a group show, or none, are left out of its mean; a group without others has none.

    Args:
        scored: the same films by one or several classifiers.
        patients: whose films they are.
    """

    def mean(rows: Rows) -> float:
        areas = [
            area_under_curve(scores.probabilities[rows, column], scores.labels[rows, column])
            for scores in scored
            for column in range(len(scores.conditions))
            if 0 < scores.labels[rows, column].sum() < len(rows)
        ]
        return float(np.mean(areas)) if areas else float("nan")

    def estimate(rows: Rows) -> Estimate | None:
        return None if np.isnan(mean(rows)) else over_patients(mean, rows, patients.ids)

    return subgroups(patients, estimate)
