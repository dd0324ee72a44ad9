"""Loss-gap membership: closed forms, Obuchowski's variance written out, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.studies.decisions import area_under_curve
from analysis.studies.membership import loss_gap_membership, placements


def test_lower_losses_of_members_give_them_away() -> None:
    told = loss_gap_membership([0.1, 0.2, 0.3], [0.4, 0.5])
    assert (told.auc, told.low, told.high) == (1.0, 1.0, 1.0)
    assert loss_gap_membership([0.4, 0.5], [0.1, 0.2]).auc == 0.0
    assert loss_gap_membership([0.5, 0.5], [0.5, 0.5, 0.5]).auc == 0.5


def test_the_area_is_that_of_the_negated_loss() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.normal(0, 1, 50).round(1), rng.normal(0.4, 1, 70).round(1)
    expected = area_under_curve(-np.concatenate([members, others]), np.arange(120) < 50)
    assert loss_gap_membership(members, others).auc == pytest.approx(expected, abs=1e-12)


def test_placements_are_the_shares_of_pairs() -> None:
    rng = np.random.default_rng(1)
    members, others = rng.integers(0, 6, 20).astype(float), rng.integers(1, 7, 15).astype(float)
    wins = (members[:, None] < others[None]) + 0.5 * (members[:, None] == others[None])
    by_member, by_other = placements(members, others)
    np.testing.assert_allclose(by_member, wins.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(by_other, wins.mean(axis=0), atol=1e-12)


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(2), float(stats.norm.cdf(0.8 / 2**0.5))
    results = [loss_gap_membership(rng.normal(0, 1, 60), rng.normal(0.8, 1, 90)) for _ in range(1500)]
    assert np.mean([result.low <= truth <= result.high for result in results]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([result.auc for result in results]) == pytest.approx(truth, abs=0.005)


def _of_patients(rng: np.random.Generator, sizes: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """Losses of films; two of one patient are correlated by `share`."""
    of_patient = np.repeat(rng.standard_normal(len(sizes)), sizes)
    return np.sqrt(share) * of_patient + np.sqrt(1 - share) * rng.standard_normal(sizes.sum())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_films_of_one_patient_do_not_pass_for_independent_ones(share: float) -> None:
    """Losses that tell nothing: the interval leaves 0.5 out once in twenty, however alike a patient's films are."""
    rng, sizes = np.random.default_rng(4), np.array([1, 1, 2, 3, 4, 5, 12] * 10)
    patients = [f"p{number}" for number in np.repeat(np.arange(len(sizes)), sizes)]
    others = [f"o{name}" for name in patients]
    pairs = [(_of_patients(rng, sizes, share), _of_patients(rng, sizes, share)) for _ in range(600)]
    results = [loss_gap_membership(*pair, member_patients=patients, other_patients=others) for pair in pairs]
    assert np.mean([result.low <= 0.5 <= result.high for result in results]) == pytest.approx(0.95, abs=0.03)
    assert (results[0].num_members, results[0].num_member_patients, results[0].num_other_patients) == (280, 70, 70)
    if share:
        single = [loss_gap_membership(*pair) for pair in pairs]
        assert np.mean([result.low <= 0.5 <= result.high for result in single]) < 0.8


def test_the_variance_of_patients_is_obuchowskis() -> None:
    """Written out over pairs of films, and DeLong's where each patient has one."""
    rng = np.random.default_rng(5)
    members, others = rng.normal(0, 1, 9), rng.normal(0.5, 1, 7)
    whose, whose_others = "aaabbcdde", "vwwxxxy"
    wins = members[:, None] < others[None]
    auc, variance = wins.mean(), 0.0
    for table, groups in ((wins, whose), (wins.T, whose_others)):
        sums = [
            sum((row.mean() - auc) for row, group in zip(table, groups, strict=True) if group == g) for g in set(groups)
        ]
        variance += len(sums) / (len(sums) - 1) * sum(part**2 for part in sums) / len(table) ** 2
    result = loss_gap_membership(members, others, member_patients=list(whose), other_patients=list(whose_others))
    assert result.high - result.auc == pytest.approx(min(1.959964 * variance**0.5, 1 - auc))
    assert result.auc - result.low == pytest.approx(min(1.959964 * variance**0.5, auc))
    each = loss_gap_membership(members, others, member_patients=list("abcdefghi"), other_patients=list("pqrstuv"))
    assert each == loss_gap_membership(members, others)


def test_patients_are_of_one_side_and_at_least_two() -> None:
    losses = [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="`others` must be of other patients than `members`, but got 'b' in both"):
        loss_gap_membership(losses, losses, member_patients=["a", "b", "b"], other_patients=["b", "c", "d"])
    with pytest.raises(ValueError, match="`members` must be of at least 2 patients, but got 1"):
        loss_gap_membership(losses, losses, member_patients=["a"] * 3, other_patients=["b", "c", "d"])
    with pytest.raises(ValueError, match="`groups` must name one group for each of 3 images, but got"):
        loss_gap_membership(losses, losses, member_patients=["a"], other_patients=["b", "c", "d"])


def test_scale_and_offset_of_the_loss_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    members, others = rng.random(30), rng.random(40)
    assert loss_gap_membership(members, others) == loss_gap_membership(4 * members + 1, 4 * others + 1)


def test_reported_numbers_are_named() -> None:
    values = loss_gap_membership([0.1, 0.2, 0.5], [0.4, 0.5]).as_dict()
    assert values["membership_num"] == 5
    assert values["membership_auc_low"] <= values["membership_auc"] <= values["membership_auc_high"]


def test_what_is_no_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="`members` must be finite, but got 1 that are not"):
        loss_gap_membership([0.1, np.nan], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"`others` must be \[n\], n >= 2, but got \[1\]"):
        loss_gap_membership([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), but got 95"):
        loss_gap_membership([0.1, 0.2], [0.1, 0.2], confidence=95)
