"""What low rungs are worth, on tables whose answer is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from analysis.front.pareto import Objective
from analysis.report.agreement import agreement_lines, agreement_section, in_words
from analysis.studies.rung_agreement import RungAgreement, rung_agreements, spearman_interval

FID, VENDI = Objective("fid_mini", "min"), Objective("vendi_mini", "max")


def recorded(early: list[float], **last: list[float]) -> pd.DataFrame:
    """A sweep of trials that were evaluated after the first of two epochs, too."""
    rows: list[dict[str, object]] = []
    for number, value in enumerate(early):
        common = {"trial_id": f"t{number}", "epoch_s": 1.0}
        rows.append({**common, "epoch": 0, "final": False, "early_kid_mini": value, "early_num_generated": 24})
        rows.append({**common, "epoch": 1, "final": True, **{name: values[number] for name, values in last.items()}})
    return pd.DataFrame(rows)


def only(results: pd.DataFrame, *objectives: Objective) -> RungAgreement:
    (agreement,) = rung_agreements(results, objectives)
    return agreement


def test_the_same_order_is_one_and_the_opposite_minus_one() -> None:
    early, fid = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [5.0, 6.0, 9.0, 50.0, 51.0, 90.0]
    same = only(recorded(early, fid_mini=fid), FID)
    assert (same.correlation, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (same.epoch, same.metric, same.objective) == (0, "early_kid_mini", "fid_mini")
    assert (same.num_trials, same.num_generated) == (6, 24)
    assert only(recorded(early, fid_mini=fid[::-1]), FID).correlation == pytest.approx(-1.0)


def test_rungs_are_found_whatever_the_extractors_name() -> None:
    early, fid = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [5.0, 6.0, 9.0, 50.0, 51.0, 90.0]
    table = recorded(early, fid_rad_dino=fid).rename(columns={"early_kid_mini": "early_kid_rad_dino"})
    agreement = only(table, Objective("fid_rad_dino", "min"))
    assert (agreement.metric, agreement.correlation) == ("early_kid_rad_dino", pytest.approx(1.0))


def test_directions_are_those_of_better_and_worse() -> None:
    early, vendi = [0.1, 0.2, 0.4, 0.8, 1.6], [9.0, 8.0, 7.0, 6.0, 5.0]
    assert only(recorded(early, vendi_mini=vendi), VENDI).correlation == pytest.approx(1.0)


def test_ties_have_the_mean_of_their_ranks() -> None:
    early, fid = [1.0, 1.0, 2.0, 3.0, 3.0, 3.0], [2.0, 1.0, 4.0, 4.0, 9.0, 5.0]
    a, b = rankdata(early), rankdata(fid)
    agreement = only(recorded(early, fid_mini=fid), FID)
    assert agreement.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    assert agreement.low is not None and agreement.high is not None
    assert -1 <= agreement.low < agreement.correlation < agreement.high <= 1


def test_trials_without_an_end_or_without_a_rung_are_left_out() -> None:
    table = recorded([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], fid_mini=[1.0, 2.0, 3.0, 4.0, 5.0, np.nan, np.inf])
    assert only(table, FID).num_trials == 5
    stopped = table[~((table["trial_id"] == "t0") & table["final"])]
    agreement = only(stopped, FID)
    assert agreement.num_trials == 4 and agreement.correlation is None is agreement.low
    assert "too few trials to tell (4, at least 5)" in in_words(agreement)


def test_what_does_not_vary_has_no_order() -> None:
    agreement = only(recorded([0.1] * 6, fid_mini=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), FID)
    assert agreement.correlation is None and "the same for every trial" in in_words(agreement)


def test_costs_and_conditions_and_sweeps_without_rungs_have_none() -> None:
    table = recorded([0.1, 0.2, 0.3, 0.4, 0.5], fid_mini=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert rung_agreements(table, [Objective("epoch_s", "min")]) == []
    assert rung_agreements(table[table["final"]], [FID]) == []
    assert rung_agreements(table.drop(columns="final"), [FID]) == [] == rung_agreements(pd.DataFrame(), [FID])
    assert len(rung_agreements(table.assign(**{"early_kid_mini/Edema": 1.0}), [FID])) == 1


def test_rungs_that_are_evaluated_like_the_end_are_compared_by_the_objective_itself() -> None:
    table = recorded([0.1] * 5, fid_mini=[1.0, 2.0, 3.0, 4.0, 5.0]).drop(columns=["early_kid_mini"])
    table.loc[~table["final"], "fid_mini"] = [10.0, 20.0, 30.0, 50.0, 40.0]
    agreement = only(table, FID)
    assert (agreement.metric, agreement.correlation) == ("fid_mini", pytest.approx(0.9))


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal pairs of correlation 0.7 have a Spearman correlation of 6/pi asin(0.35)."""
    rng, truth = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.35)
    drawn = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=(100, 40))
    ends = [spearman_interval(pairs, seed=1) for pairs in drawn]
    assert 88 <= sum(low <= truth <= high for low, high in ends) <= 100
    assert 0.2 < np.mean([high - low for low, high in ends]) < 0.6


def test_the_order_of_the_rows_changes_nothing() -> None:
    table = recorded([0.3, 0.1, 0.2, 0.5, 0.4], fid_mini=[3.0, 1.0, 5.0, 4.0, 2.0])
    expected = only(table, FID).correlation
    for order in list(permutations(range(5)))[::30]:
        mixed = pd.concat([table[table["trial_id"] == f"t{number}"] for number in order])
        assert only(mixed, FID).correlation == pytest.approx(expected)


def test_page_and_terminal_say_it_in_words() -> None:
    table = recorded([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], fid_mini=[1, 2, 3, 4, 5, 6], vendi_mini=[1, 5, 2, 6, 3, 4])
    agreements = rung_agreements(table, [FID, VENDI])
    section = agreement_section(agreements)
    assert "<td>early KID (mini)</td><td>FID (mini)</td>" in section and '<td class="n">24</td>' in section
    assert "orders the trials much as the last FID (mini) does" in section
    assert "has not been shown to say anything of the last Vendi score (mini)" in section
    first, _ = agreement_lines(agreements)
    assert first.startswith("epoch 1: early KID (mini) with the last FID (mini) over 6 trials: +1.00 [1.00 to 1.00].")
    assert agreement_section([]) == ""
