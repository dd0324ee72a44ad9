"""What a recording says of rungs, on curves whose answer is known."""

from __future__ import annotations

import pytest

from benchmarks.recordings import METRICS, Curve, Point, Score
from benchmarks.recordings.agreement import agreements, cost_shares, seed_spreads

RUNGS, COUNTS = [1, 3], [2, 8]


def curve(number: int, fid_by_look: dict[tuple[int, int], float], *, seed: int = 0) -> Curve:
    """A curve with a Fréchet distance at each look; the other metrics are its double."""
    points = [
        Point(
            epoch=epoch,
            images_per_condition=count,
            num_generated=count,
            num_reference=count,
            loss=float(number),
            scores={
                name: Score(value=fid * (1 + (name != "fid_mini")), se=0.5, se_generated=0.3 + 0.1 * (seed % 2))
                for name in METRICS
            },
            trainable_parameters=1,
            training_s=epoch,
            training_cpu_s=10.0 * epoch,
            evaluation_s=1,
            evaluation_cpu_s=float(count),
            peak_memory_gib=1,
            gauge_cpu_s=0.1,
        )
        for (epoch, count), fid in fid_by_look.items()
    ]
    return Curve(
        config=f"lora-{number:02d}",
        strategy="lora",
        seed=seed,
        cut=None,
        choice={},
        params={},
        points=points,
        losses=[],
        failure=None,
        early_failures={},
    )


def ordered(number: int, *, seed: int = 0, shift: float = 0.0) -> Curve:
    """At the first rung few films order as the end does and all films the other way round."""
    last = float(number) + shift
    return curve(number, {(1, 2): last**2, (1, 8): -last, (3, 2): last + 1, (3, 8): last}, seed=seed)


def test_a_rung_in_the_order_of_the_end_has_correlation_1_and_one_in_the_opposite_order_has_minus_1() -> None:
    figures = agreements([ordered(number) for number in range(1, 8)], RUNGS, COUNTS)
    by_look = {(figure.epoch, figure.images_per_condition): figure for figure in figures if figure.metric == "fid_mini"}
    assert by_look[1, 2].correlation == by_look[3, 2].correlation == pytest.approx(1)
    assert by_look[1, 8].correlation == by_look[1, 8].within_strategies == pytest.approx(-1)
    assert by_look[1, 2].num_curves == 7 and (3, 8) not in by_look
    assert (by_look[1, 2].low, by_look[1, 2].high) == pytest.approx((1, 1))
    assert {figure.epoch for figure in figures if figure.metric == "loss"} == {1}


def test_further_seeds_and_failed_trainings_do_not_count_and_few_curves_give_no_correlation() -> None:
    figures = agreements([ordered(number, seed=number % 2) for number in range(8)], RUNGS, COUNTS)
    assert {figure.num_curves for figure in figures} == {4}
    assert {(figure.correlation, figure.low, figure.within_strategies) for figure in figures} == {(None, None, None)}


def test_what_a_rung_costs_is_its_training_and_its_own_evaluation_over_those_of_the_end() -> None:
    shares = {
        (figure.epoch, figure.images_per_condition): figure.share for figure in cost_shares([ordered(1)], RUNGS, COUNTS)
    }
    assert shares == {(1, 2): 12 / 38, (1, 8): 18 / 38, (3, 2): 32 / 38, (3, 8): 1}


def test_the_spread_of_seeds_is_pooled_within_configurations() -> None:
    curves = [ordered(number, seed=seed, shift=seed) for number in (10, 20) for seed in (0, 1, 2)] + [ordered(99)]
    fid = seed_spreads(curves, 3, 8)[0]
    assert (fid.metric, fid.num_configs) == ("fid_mini", 2)
    assert fid.between_seeds == pytest.approx(1)  # 0, 1, 2
    assert fid.between_configs == pytest.approx(50**0.5)  # 11 and 21
    assert fid.standard_error == pytest.approx(((4 * 0.3**2 + 2 * 0.4**2) / 6) ** 0.5)
    assert seed_spreads(curves[:3], 3, 8) == []
