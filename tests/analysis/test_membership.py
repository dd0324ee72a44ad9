"""Loss-gap membership: closed forms, DeLong's variance written out, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.decisions import area_under_curve
from analysis.membership import loss_gap_membership, placements


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


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(2), float(stats.norm.cdf(0.8 / 2**0.5))
    found = [loss_gap_membership(rng.normal(0, 1, 60), rng.normal(0.8, 1, 90)) for _ in range(1500)]
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([one.auc for one in found]) == pytest.approx(truth, abs=0.005)


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
