"""RMSE, PSNR, SSIM, MS-SSIM: closed forms, the definition window by window, scikit-image, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from analysis.metrics import ms_ssim, ms_ssim_diversity, psnr, rmse, ssim
from analysis.metrics.ms_ssim import SCALE_WEIGHTS, _pairs, num_scales

Images = NDArray[np.float64]


def _films(num_images: int, side_px: int, seed: int = 0) -> Images:
    """Smooth pictures in [0, 1] that differ."""
    down, across = np.mgrid[:side_px, :side_px] / side_px
    rng = np.random.default_rng(seed)
    waves = [np.sin(rng.uniform(2, 25) * down + rng.uniform(2, 25) * across + i) for i in range(num_images)]
    return np.stack(waves) * 0.4 + 0.5


def _window() -> Images:
    offsets = np.arange(11) - 5.0
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    return weights / weights.sum()


def _terms_by_definition(first: Images, second: Images, span: float) -> tuple[float, float]:
    """Wang et al. 2004, eq. 13, window by window: means of SSIM and of its part without luminance."""
    weights, constant_1, constant_2 = _window(), (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for top in range(first.shape[0] - 10):
        for left in range(first.shape[1] - 10):
            x, y = first[top : top + 11, left : left + 11], second[top : top + 11, left : left + 11]
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
            covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
            contrast = (2 * covariance + constant_2) / (var_x + var_y + constant_2)
            luminance = (2 * mean_x * mean_y + constant_1) / (mean_x**2 + mean_y**2 + constant_1)
            values.append((luminance * contrast, contrast))
    ssim_mean, contrast_mean = np.mean(values, axis=0)
    return float(ssim_mean), float(contrast_mean)


def test_a_constant_error_has_the_closed_form() -> None:
    film = np.full((2, 16, 16), 100, dtype=np.uint8)
    other = film + np.array([3, 51], dtype=np.uint8)[:, None, None]
    assert rmse(other, film) == pytest.approx([3 / 255, 0.2])
    assert psnr(other, film) == pytest.approx([20 * np.log10(85), 20 * np.log10(5)])
    constant = (0.01 * 255) ** 2  # flat pictures differ in luminance alone
    expected = [(2 * 100 * value + constant) / (100**2 + value**2 + constant) for value in (103, 151)]
    assert ssim(other, film) == pytest.approx(expected)


def test_an_image_is_its_own_best_reconstruction() -> None:
    films = _films(3, 48)
    assert rmse(films, films, 1.0) == pytest.approx(np.zeros(3))
    assert np.isposinf(psnr(films, films, 1.0)).all()
    assert ssim(films, films, 1.0) == pytest.approx(np.ones(3))
    assert ms_ssim(films, films, 1.0) == pytest.approx(np.ones(3))


@pytest.mark.parametrize("shape", [(11, 11), (13, 20)])
def test_ssim_agrees_with_the_definition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 2, (2, *shape))
    expected, _ = _terms_by_definition(first, second, 2.0)
    assert ssim(first[None], second[None], 2.0) == pytest.approx([expected], rel=1e-10)


def test_agrees_with_scikit_image() -> None:
    rng = np.random.default_rng(1)
    films = np.round(255 * _films(3, 40)).astype(np.uint8)
    noisy = np.clip(films + rng.normal(0, 20, films.shape), 0, 255).astype(np.uint8)
    pairs = list(zip(films, noisy, strict=True))
    options = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5}
    assert ssim(noisy, films) == pytest.approx([structural_similarity(*pair, **options) for pair in pairs], rel=1e-9)
    assert psnr(noisy, films) == pytest.approx([peak_signal_noise_ratio(*pair) for pair in pairs], rel=1e-9)
    assert 255 * rmse(noisy, films) == pytest.approx(np.sqrt([mean_squared_error(*pair) for pair in pairs]), rel=1e-9)


def test_ms_ssim_agrees_with_the_definition_at_two_scales() -> None:
    films = _films(2, 24)
    second = 0.8 * films[0] + 0.2 * films[1]
    halved = [film.reshape(12, 2, 12, 2).mean(axis=(1, 3)) for film in (films[0], second)]
    _, fine = _terms_by_definition(films[0], second, 1.0)
    coarse, _ = _terms_by_definition(halved[0], halved[1], 1.0)
    weights = np.array(SCALE_WEIGHTS[:2]) / sum(SCALE_WEIGHTS[:2])
    expected = fine ** weights[0] * coarse ** weights[1]
    assert ms_ssim(films[:1], second[None], 1.0) == pytest.approx([expected], rel=1e-10)


def test_a_scale_without_common_structure_gives_zero() -> None:
    films = _films(1, 64)
    assert ms_ssim(films, 1 - films, 1.0) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("side_px", "expected"), [(10, 0), (11, 1), (21, 1), (22, 2), (64, 3), (128, 4), (175, 4), (176, 5), (512, 5)]
)
def test_the_window_fits_at_every_scale(side_px: int, expected: int) -> None:
    assert num_scales(side_px) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 20), st.integers(0, 999))
def test_invariances(half_side_px: int, seed: int) -> None:
    side_px = 2 * half_side_px  # halving an odd side leaves a row out, and a mirrored picture another one
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 1, (2, 2, side_px, side_px))
    for metric in (rmse, psnr, ssim, ms_ssim):
        values = metric(first, second, 1.0)
        assert metric(second, first, 1.0) == pytest.approx(values)
        assert metric(first[::-1], second[::-1], 1.0)[::-1] == pytest.approx(values)
        assert metric(first[:, :, ::-1], second[:, :, ::-1], 1.0) == pytest.approx(values)
        assert metric(255 * first, 255 * second, 255.0) == pytest.approx(values)
        assert metric(np.stack([first] * 3, axis=-1), np.stack([second] * 3, axis=-1), 1.0) == pytest.approx(values)


def test_uint8_and_floats_of_its_range_agree() -> None:
    first, second = (np.round(255 * _films(2, 32, seed)).astype(np.uint8) for seed in (0, 1))
    for metric in (rmse, psnr, ssim, ms_ssim):
        assert metric(first, second) == pytest.approx(metric(first / 255, second / 255, 1.0))


def test_diversity_of_all_pairs_is_their_mean() -> None:
    films = _films(6, 64)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    expected = np.mean([ms_ssim(films[[i]], films[[j]], 1.0)[0] for i, j in pairs])
    diversity = ms_ssim_diversity(films, num_pairs=99, data_range=1.0)
    assert (diversity.value, diversity.num_pairs, diversity.num_scales) == (pytest.approx(expected), 15, 3)


def test_pairs_are_all_different() -> None:
    first, second = _pairs(40, 780, 0)
    assert {(int(f), int(s)) for f, s in zip(first, second, strict=True)} == {
        (f, s) for s in range(40) for f in range(s)
    }
    few = set(zip(*(side.tolist() for side in _pairs(10**6, 500, 0)), strict=True))
    assert len(few) == 500 and all(0 <= f < s < 10**6 for f, s in few)


def test_a_collapsed_generator_is_less_diverse() -> None:
    films = _films(12, 64)
    collapsed = 0.9 * films[:1] + 0.1 * films
    varied, single = (ms_ssim_diversity(stack, num_pairs=30, data_range=1.0, seed=1) for stack in (films, collapsed))
    assert single.value > 0.9 > varied.value
    assert ms_ssim_diversity(np.tile(films[:1], (4, 1, 1)), data_range=1.0).value == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [rmse, psnr, ssim, ms_ssim])
@pytest.mark.parametrize(
    ("first", "second", "data_range", "message"),
    [
        (np.ones((2, 16, 16)), np.ones((3, 16, 16)), 1.0, r"same shape and type, but got float64\[2, 16, 16\]"),
        (np.ones((2, 16, 16), np.uint8), np.ones((2, 16, 16)), 1.0, "same shape and type"),
        (np.ones((2, 16, 16)), np.ones((2, 16, 16)), None, "`data_range` must be positive .* but got None"),
        (np.ones((2, 16, 16)), np.ones((2, 16, 16)), -1.0, "`data_range` must be positive .* but got -1"),
        (np.ones((16, 16)), np.ones((16, 16)), 1.0, r"must be \[n, H, W\] or \[n, H, W, C\]"),
        (np.full((1, 16, 16), np.nan), np.ones((1, 16, 16)), 1.0, "must be finite"),
    ],
)
def test_refusals(metric: object, first: Images, second: Images, data_range: float | None, message: str) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match=message):
        metric(first, second, data_range)


def test_too_small_or_too_few_images_are_refused() -> None:
    small = np.ones((2, 10, 20))
    for metric in (ssim, ms_ssim):
        with pytest.raises(ValueError, match="at least 11 px on each side for SSIM, but got 10 x 20"):
            metric(small, small, 1.0)
    with pytest.raises(ValueError, match="at least 11 px"):
        ms_ssim_diversity(small, data_range=1.0)
    with pytest.raises(ValueError, match=r"n >= 2, and `num_pairs` at least 1, but got \[1, 16, 16\] and 1000"):
        ms_ssim_diversity(np.ones((1, 16, 16)), data_range=1.0)
