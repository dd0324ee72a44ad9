"""What chance decides for an image depends on seed, epoch and row alone, and has the right distribution."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainables.draws import EpochDraws

NUM_IMAGES = 2000
SHAPE = (4, 8, 8)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.integers(41, 99),
)
def test_an_images_draws_are_its_own_in_any_company(rows: list[int], seed: int, epoch: int, num_images: int) -> None:
    """Of whatever batch it is part, in whatever order, and however many images there are."""
    asked, draws = np.array(rows), EpochDraws(seed, epoch, num_images)
    noises, timesteps, chances = draws.noises(asked, SHAPE), draws.timesteps(asked, 1000), draws.chances(asked)
    for place, row in enumerate(rows):
        alone, alone_in = np.array([row]), EpochDraws(seed, epoch, 41)
        for noise, alone_noise in zip(noises, alone_in.noises(alone, SHAPE), strict=True):
            assert torch.equal(noise[place], alone_noise[0])
        assert timesteps[place] == alone_in.timesteps(alone, 1000)[0]
        assert chances[place] == alone_in.chances(alone)[0]


def test_seeds_epochs_and_rows_differ_and_noise_is_independent_of_the_latents_noise() -> None:
    rows = np.arange(8)
    all_noises = [EpochDraws(seed, epoch, 8).noises(rows, SHAPE) for seed in (0, 1) for epoch in (0, 1)]
    drawn = torch.stack([noise[row] for noises in all_noises for noise in noises for row in rows]).flatten(1)
    correlations = torch.corrcoef(drawn) - torch.eye(len(drawn))
    assert correlations.abs().max() < 6 / np.sqrt(drawn.shape[1])


def test_noise_is_standard_normal_and_timesteps_and_chances_are_even() -> None:
    rows, draws = np.arange(NUM_IMAGES), EpochDraws(7, 2, NUM_IMAGES)
    for noise in draws.noises(rows, SHAPE):
        assert stats.kstest(noise.flatten()[::37].numpy(), "norm").pvalue > 1e-3
    timesteps = draws.timesteps(rows, 10)
    assert stats.chisquare(torch.bincount(timesteps, minlength=10).numpy()).pvalue > 1e-3
    chances = draws.chances(rows)
    assert stats.kstest(chances, "uniform").pvalue > 1e-3
    assert abs(stats.spearmanr(chances, draws.timesteps(rows, 1000)).statistic) < 4 / np.sqrt(NUM_IMAGES)
