"""Numbers over several trainings: Student's intervals, what they are cut to, and from how many on there are any."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sweep.final.seeds import bounds_of, over_seeds


def test_an_interval_over_trainings_ends_where_the_number_does() -> None:
    figures = {"alignment": [0.9, 1.0, 0.95], "fid_mini/Edema": [3.0, 9.0, 4.0], "vendi_mini": [1.1, 1.4, 1.2]}
    summaries = over_seeds([(seed, {name: numbers[seed] for name, numbers in figures.items()}) for seed in range(3)])[
        "values"
    ]
    for name, numbers in figures.items():
        half = stats.t.ppf(0.975, 2) * np.std(numbers, ddof=1) / math.sqrt(3)
        assert summaries[name]["mean"] == pytest.approx(np.mean(numbers))
        smallest, largest = bounds_of(name)
        ends = max(np.mean(numbers) - half, smallest), min(np.mean(numbers) + half, largest)
        assert (summaries[name]["low"], summaries[name]["high"]) == pytest.approx(ends)
    assert (
        summaries["alignment"]["high"] == 1
        and summaries["fid_mini/Edema"]["low"] == 0
        and summaries["vendi_mini"]["low"] == 1
    )


def test_two_trainings_have_a_mean_alone() -> None:
    summary = over_seeds([(0, {"fid_mini": 3.0}), (1, {"fid_mini": 9.0})])
    assert summary["values"] == {"fid_mini": {"mean": 6.0, "low": None, "high": None}}


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("fid_rad_dino/Edema", (0, math.inf)),
        ("kid_mini", (-math.inf, math.inf)),
        ("coverage_mini", (0, 1)),
        ("utility_auc/real/Edema", (0, 1)),
        ("ms_ssim/Edema", (0, 1)),
        ("fid_infinite_mini", (-math.inf, math.inf)),
        ("alignment_recall/Edema", (0, 1)),
        ("utility_num_images/real", (-math.inf, math.inf)),
    ],
)
def test_numbers_are_bounded_by_their_names(name: str, bounds: tuple[float, float]) -> None:
    assert bounds_of(name) == bounds
