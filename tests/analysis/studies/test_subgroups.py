"""Subgroups: who is in them, intervals and gaps that cover, a gap that was put in, and groups that are too small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.studies.decisions import Scored, area_under_curve
from analysis.studies.subgroups import (
    Estimate,
    Patients,
    age_band,
    auc_by_group,
    kid_by_group,
    largest_gap,
    over_patients,
    share_by_group,
)


def patients(num: int, films_each: int = 2, *, by_sex_alone: bool = False) -> Patients:
    """Half women and half men, with ages and views; every tenth without."""
    rng = np.random.default_rng(0)
    ids = np.repeat([f"p{number}" for number in range(num)], films_each)
    sexes = np.repeat([None if number % 10 == 9 else "FM"[number % 2] for number in range(num)], films_each).tolist()
    ages = np.repeat(rng.integers(20, 75, num), films_each).tolist()
    return Patients(
        ids, sexes, [None] * len(ids) if by_sex_alone else ages, [None if by_sex_alone else "PA"] * len(ids)
    )


@pytest.mark.parametrize(
    ("age", "band"), [(0, "0-17"), (17, "0-17"), (18, "18-39"), (59, "40-59"), (79, "60-79"), (80, "80+"), (101, "80+")]
)
def test_ages_fall_into_bands(age: int, band: str) -> None:
    assert age_band(age) == band


def test_every_film_with_a_known_value_is_in_one_group_of_each_division() -> None:
    people = patients(60)
    groups = people.groups()
    assert list(groups["sex"]) == ["female", "male"] and list(groups["age"]) == ["18-39", "40-59", "60-79"]
    assert sum(len(rows) for rows in groups["sex"].values()) == 108
    assert sorted(np.concatenate(list(groups["age"].values()))) == list(range(120)) == list(groups["view"]["PA"])
    rows = groups["sex"]["male"]
    assert people.take(rows).groups()["sex"].keys() == {"male"}


def test_the_interval_over_patients_is_that_of_independent_patients() -> None:
    """Two films of a patient that are alike are one: the interval is that of half as many films."""
    values = np.repeat(np.random.default_rng(0).normal(size=200), 2)
    ids = np.repeat(np.arange(200).astype(str), 2)
    estimate = over_patients(lambda rows: float(values[rows].mean()), np.arange(400), ids, num_resamples=600)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * values[::2].std() / math.sqrt(200), rel=0.1)


def test_the_largest_gap_is_in_closed_form() -> None:
    groups = {"a": Estimate(value=0.5, low=0.4, high=0.6), "b": Estimate(value=0.8, low=0.77, high=0.83)}
    gap = largest_gap(groups)
    assert gap.groups == ("b", "a") and gap.value == pytest.approx(0.3)
    assert gap.high - gap.value == pytest.approx(math.hypot(0.1, 0.03)) == pytest.approx(gap.value - gap.low)
    wider = largest_gap({**groups, "c": Estimate(value=0.7, low=0.6, high=0.8)})
    assert wider.groups == ("b", "a")
    assert (wider.high - wider.value) / (gap.high - gap.value) == pytest.approx(2.394 / 1.96, rel=1e-3)


@pytest.mark.slow
def test_gaps_of_equal_groups_hold_zero_as_often_as_stated_and_a_real_one_is_found() -> None:
    people = patients(120, films_each=1, by_sex_alone=True)
    equal = [share_by_group(np.random.default_rng(seed).random(120) < 0.6, people).gaps["sex"] for seed in range(60)]
    assert 51 <= sum(gap.low <= 0 for gap in equal) <= 60
    women = np.array([sex == "F" for sex in people.sexes])
    groups = share_by_group(np.random.default_rng(0).random(120) < np.where(women, 0.9, 0.4), people)
    assert groups.gaps["sex"].groups == ("female", "male") and groups.gaps["sex"].low > 0
    named = groups.named("alignment")
    assert named["subgroup_alignment_gap/sex"] == pytest.approx(
        named["subgroup_alignment/sex female"] - named["subgroup_alignment/sex male"]
    )


def test_a_gap_is_as_wide_as_if_no_interval_had_been_cut_at_its_bounds() -> None:
    """A share of 0.98 that is off by 0.05 cannot be above 1, but it is no surer for that."""
    whole = {"a": Estimate(value=0.98, low=0.93, high=1.03), "b": Estimate(value=0.02, low=-0.03, high=0.07)}
    cut = {"a": Estimate(value=0.98, low=0.93, high=1.0), "b": Estimate(value=0.02, low=0.0, high=0.07)}
    for gap in (largest_gap(whole), largest_gap(cut)):
        assert gap.high - gap.value == pytest.approx(math.hypot(0.05, 0.05))


def test_auc_and_kid_are_those_of_the_groups_films_alone() -> None:
    people, rng = patients(80, by_sex_alone=True), np.random.default_rng(0)
    labels = rng.random((160, 2)) < 0.5
    scored = Scored(np.clip(labels * 0.3 + rng.random((160, 2)) * 0.7, 0, 1), labels, ("a", "b"))
    rows = people.groups()["sex"]["male"]
    due = np.mean([area_under_curve(scored.probabilities[rows, at], labels[rows, at]) for at in (0, 1)])
    assert auc_by_group([scored], people).estimates["sex"]["male"].value == pytest.approx(due)
    real = rng.normal(size=(160, 4))
    generated = real + np.array([3.0 if sex == "M" else 0.0 for sex in people.sexes])[:, None]
    gap = kid_by_group(generated, real, people, num_resamples=20).gaps["sex"]
    assert gap.groups == ("male", "female") and gap.low > 0


def test_a_group_that_is_too_small_says_so_and_so_does_one_without_a_contrast() -> None:
    people = patients(22, films_each=1)
    groups = share_by_group(np.ones(22, bool), people)
    assert groups.too_few["sex female"] == (11, 11) and "sex" not in groups.gaps
    assert groups.estimates["view"]["PA"].value == 1
    assert groups.details()["too_few"]["sex male"] == {"films": 9, "patients": 9}
    all_show = Scored(np.full((22, 1), 0.5), np.ones((22, 1), bool), ("a",))
    assert "view PA" in auc_by_group([all_show], people).too_few
