"""Which smaller adapter of a training is scored next, and which never: closed forms, orders by hand, and a second implementation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.front.pareto import Objective
from analysis.run_folder import SAMPLES_SHEET, resamples_beside
from sweep.search.cuts import next_cut
from trainables.cuts import cut_name

FID, VENDI = Objective("fid_mini", "min"), Objective("vendi_mini", "max")
SIZE, SECONDS = Objective("trainable_parameters", "min"), Objective("epoch_s", "min")
TRIAL, SHARE = Path("run") / "trials" / "a", 0.002
Curve = Mapping[int, Mapping[str, float]]


def curve(**columns: Sequence[float]) -> Curve:
    """What each rank scores, by rank: powers of two, of which the last is the whole."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {2**place: row for place, row in enumerate(rows)}


def known(rank: float) -> dict[str, float]:
    """What is known of a rank: a hundred parameters each, and its training's seconds."""
    return {"trainable_parameters": 100 * rank, "epoch_s": 3.5}


def folder(trial: Path, rank: float, whole: float) -> Path:
    return trial if rank == whole else trial.with_name(cut_name(trial.name, f"rank{rank}"))


def following(scores: Curve, scored: Sequence[int], objectives: Sequence[Objective], trial: Path = TRIAL) -> int | None:
    """The rank that is scored after those, where they score that; the whole is the first of them."""
    told = {folder(trial, rank, max(scores)): {**known(rank), **scores[rank]} for rank in scored}
    left = {f"rank{rank}": known(rank) for rank in scores if rank not in scored}
    label = next_cut(told, left, objectives=objectives)
    return None if label is None else int(label.removeprefix("rank"))


def order(scores: Curve, objectives: Sequence[Objective], trial: Path = TRIAL) -> list[int]:
    """The ranks below the whole as they are scored."""
    scored = [max(scores)]
    while (rank := following(scores, scored, objectives, trial)) is not None:
        scored.append(rank)
    return scored[1:]


def write_errors(trial: Path, errors: Mapping[int, Mapping[str, float]]) -> None:
    """Leave resamples beside each rank's samples, of which every column has that standard deviation, in step with all others."""
    for rank, columns in errors.items():
        path = resamples_beside(folder(trial, rank, max(errors)) / SAMPLES_SHEET)
        path.parent.mkdir(parents=True)
        spread = {name: [30 - error / np.sqrt(2), 30 + error / np.sqrt(2)] for name, error in columns.items()}
        pd.DataFrame(spread).to_parquet(path)


@pytest.mark.parametrize("fids", [[20.0] * 6, [20, 21, 22, 23, 24, 25], [20, 40, 20, 40, 20, 20]])
@pytest.mark.parametrize("objectives", [[FID, SIZE], [FID, SIZE, SECONDS]])
def test_where_the_smallest_is_as_good_as_the_whole_and_no_errors_are_known_only_the_ends_are_scored(
    fids: list[float], objectives: list[Objective]
) -> None:
    assert order(curve(fid_mini=fids), objectives) == [1]


def test_ranks_that_differ_in_known_costs_alone_are_not_scored() -> None:
    assert order(curve(fid_mini=[30, 20, 25, 10]), [SIZE, SECONDS]) == [1]


def test_a_convex_curve_is_scored_up_to_the_rank_that_is_as_good_as_the_whole() -> None:
    """The best that a gap promises is the quality of its larger end, which is worth most at the smallest rank."""
    assert order(curve(fid_mini=[60, 40, 30, 25, 22, 20]), [FID, SIZE]) == [1, 2, 4, 8, 16]
    assert order(curve(fid_mini=[60, 30, 20, 99, 99, 20]), [FID, SIZE]) == [1, 2, 4]


def test_the_gap_that_promises_most_is_halved_where_no_cost_tells_its_ranks_apart() -> None:
    """By hand: at first 4 of 2, 4, 8. Of (40, 3) and (22, 2.8), 2 may have (22, 3), which adds 18 x 0.2 = 3.6; of (22, 2.8) and
    (20, 2), 8 may have (20, 2.8), which adds 2 x 0.8 = 1.6. With a vendi of 2.95 at rank 4 it is 18 x 0.05 = 0.9 and 2 x 0.95 = 1.9."""
    fids = [40, 30, 22, 21, 20]
    assert order(curve(fid_mini=fids, vendi_mini=[3, 2.9, 2.8, 2.5, 2]), [FID, VENDI]) == [1, 4, 2, 8]
    assert order(curve(fid_mini=fids, vendi_mini=[3, 2.97, 2.95, 2.5, 2]), [FID, VENDI]) == [1, 4, 8, 2]


@pytest.mark.parametrize(("beyond", "is_scored"), [(0.99, False), (1.01, True)])
def test_a_rank_is_scored_from_the_share_of_the_hypervolume_on_that_it_may_add(beyond: float, is_scored: bool) -> None:
    """Closed form. Logarithms of parameters: 0, c, C, of qualities b + d, ?, b. The reference point lies a tenth of the ranges
    beyond the worst, so the ends have 1.1 C x 0.1 d + 0.1 C x d = 0.21 C d, and the rank may add (C - c) d."""
    whole = 10.0**2
    rank = whole / 10 ** (beyond * SHARE * 0.21 * 2)
    told = {
        TRIAL: {**known(whole), "fid_mini": 20.0},
        TRIAL.with_name("a-rank1"): {**known(1), "fid_mini": 27.0},
    }
    label = next_cut(told, {"rank": known(rank)}, objectives=[FID, SIZE])
    assert (label == "rank") is is_scored


@pytest.mark.parametrize(("beyond", "is_scored"), [(0.99, False), (1.01, True)])
def test_a_metric_is_taken_for_better_by_half_the_standard_error_of_the_difference(
    beyond: float, is_scored: bool, tmp_path: Path
) -> None:
    """Closed form. Where the smallest is better by d and has 0 for its logarithm of parameters, the larger ones c and C, the ends
    have 1.1 C x 1.1 d, and the rank may add half an error e times 1.1 C - c."""
    trial, d = tmp_path / "trials" / "a", 3.0
    error = beyond * 2 * SHARE * 1.1 * 1.1 * d * np.log10(4) / (1.1 * np.log10(4) - np.log10(2))
    write_errors(trial, {1: {"fid_mini": error}, 4: {"fid_mini": 1e-9}})
    assert order(curve(fid_mini=[20, 20, 20 + d]), [FID, SIZE], trial) == ([1, 2] if is_scored else [1])


def test_what_the_same_films_make_of_all_ranks_alike_is_no_reason_to_score_them(tmp_path: Path) -> None:
    write_errors(tmp_path / "trials" / "a", {rank: {"fid_mini": 20.0} for rank in (1, 2, 4, 8)})
    assert order(curve(fid_mini=[20, 40, 15, 20]), [FID, SIZE], tmp_path / "trials" / "a") == [1]


def test_where_fewer_than_two_have_values_nothing_is_left_out() -> None:
    assert order(curve(fid_mini=[20.0, np.nan, np.nan, np.nan]), [FID, SIZE]) == [1, 2, 4]
    assert order(curve(fid_mini=[np.nan] * 4), [FID, SIZE]) == [1, 2, 4]
    assert order(curve(kid_mini=[1.0] * 4), [FID, SIZE]) == [1, 2, 4]


def test_a_rank_without_values_is_no_reason_to_pass_its_neighbours_over() -> None:
    assert order(curve(fid_mini=[60, np.nan, 30, 20]), [FID, SIZE]) == [1, 2, 4]


def test_a_training_without_smaller_ranks_has_none_to_score() -> None:
    assert order(curve(fid_mini=[20]), [FID, SIZE]) == []


def volume(points: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """Hypervolume by cells: all objectives are cut at the points' values, and each cell is dominated or not."""
    inside = points[(points < bound).all(axis=1)]
    axes = [np.unique([*inside[:, axis], bound[axis]]) for axis in range(len(bound))]
    return sum(
        float(np.prod([axis[place + 1] - axis[place] for axis, place in zip(axes, cell, strict=True)]))
        for cell in itertools.product(*(range(len(axis) - 1) for axis in axes))
        if (inside <= [axis[place] for axis, place in zip(axes, cell, strict=True)]).all(axis=1).any()
    )


def worth(scores: Curve, errors: Curve, scored: Sequence[int]) -> dict[int, float]:
    """The share that each other rank between two scored ones may add, by the second implementation: FID, Vendi, parameters."""

    def row(rank: int) -> list[float]:
        return [scores[rank]["fid_mini"], -scores[rank]["vendi_mini"], np.log10(100 * rank)]

    def spread(rank: int) -> list[float]:
        return [errors[rank]["fid_mini"], errors[rank]["vendi_mini"], 0]

    points = np.array([row(rank) for rank in scored])
    worst, best = points.max(axis=0), points.min(axis=0)
    lower, upper = np.quantile(points, 0.25, axis=0), np.quantile(points, 0.75, axis=0)
    bound = worst + 0.1 * (worst - best)
    bound[:2] = np.minimum(bound, upper + 1.5 * (upper - lower))[:2]
    whole, shares = volume(points, bound), {}
    for rank in set(scores) - set(scored):
        low, high = max(other for other in scored if other < rank), min(other for other in scored if other > rank)
        hope = np.minimum(row(low), row(high)) - 0.5 * np.abs(np.subtract(spread(low), spread(high)))
        hope[2] = np.log10(100 * rank)
        shares[rank] = (volume(np.vstack([points, hope]), bound) - whole) / whole if (hope < bound).all() else 0.0
    return shares


def noisy(rng: np.random.Generator) -> tuple[Curve, Curve]:
    """Six ranks whose qualities rise and saturate, or fall, beside errors of all sizes; and those errors."""
    trend, noise = rng.normal(size=2), 10 ** rng.uniform(-3, 1)
    steps = 1 - 2.0 ** -np.arange(6)
    fids = 40 - 10 * trend[0] * steps + noise * rng.normal(size=6)
    vendis = 3 + trend[1] * steps + 0.05 * noise * rng.normal(size=6)
    errors = curve(fid_mini=noise * rng.uniform(0.5, 1, 6), vendi_mini=0.05 * noise * rng.uniform(0.5, 1, 6))
    return curve(fid_mini=fids.tolist(), vendi_mini=vendis.tolist()), errors


@pytest.mark.slow
def test_on_random_curves_the_rank_that_may_add_most_is_next_and_what_is_left_out_may_add_less_than_the_share(
    tmp_path: Path,
) -> None:
    num_scored = set[int]()
    for seed in range(25):
        scores, errors = noisy(np.random.default_rng(seed))
        trial = tmp_path / str(seed) / "trials" / "a"
        write_errors(trial, errors)
        ranks = order(scores, [FID, VENDI, SIZE], trial)
        assert ranks[0] == 1
        for place, rank in enumerate(ranks[1:], start=1):
            shares = worth(scores, errors, [32, *ranks[:place]])
            assert shares[rank] == pytest.approx(max(shares.values())) and shares[rank] >= SHARE
        assert all(share < SHARE for share in worth(scores, errors, [32, *ranks]).values())
        num_scored.add(len(ranks))
    assert {1, 5} < num_scored  # else nothing would be saved, or nothing chosen
