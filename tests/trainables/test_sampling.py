"""Sampling: paired by seed, independent of the batch, equal to the plain pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainables.base_models.models import DiffusionModels, load_base
from trainables.numerics import Numerics
from trainables.sampling import evaluating, generate, generate_batches, noise_scheduler_of, pipeline_of, to_uint8
from trainables.sheets import GAP_PX, labelled_sheet, sheet

PROMPTS = ["a red circle", "a blue square", "a red circle"]


@pytest.fixture(scope="module")
def models() -> DiffusionModels:
    return load_base("mini")


def sample(
    models: DiffusionModels, prompts: Sequence[str], seeds: Sequence[int], *, batch_size: int = 2, guidance: float = 3.0
) -> NDArray[np.float32]:
    options: dict[str, Any] = {"num_steps": 3, "guidance_scale": guidance, "batch_size": batch_size}
    return np.concatenate(list(generate_batches(models, prompts, seeds, **options)))


@pytest.mark.slow
def test_an_image_depends_on_its_prompt_and_seed_only(models: DiffusionModels) -> None:
    together = sample(models, PROMPTS, [5, 6, 7], batch_size=3)
    apart = sample(models, PROMPTS, [5, 6, 7], batch_size=1)
    backwards = sample(models, PROMPTS[::-1], [7, 6, 5], batch_size=2)[::-1]
    np.testing.assert_allclose(together, apart, atol=1e-4)
    np.testing.assert_allclose(together, backwards, atol=1e-4)
    assert np.abs(together[0] - together[2]).max() > 1e-2


def test_an_empty_prompt_guides_no_other_where_there_is_no_guidance(models: DiffusionModels) -> None:
    beside = sample(models, ["", PROMPTS[0]], [5, 6], guidance=0.5)
    np.testing.assert_allclose(beside[1:], sample(models, PROMPTS[:1], [6], guidance=0.5), atol=1e-5)


@pytest.mark.slow
def test_the_same_call_gives_the_same_bits(models: DiffusionModels) -> None:
    torch.manual_seed(0)
    first = sample(models, PROMPTS, [5, 6, 7])
    torch.manual_seed(1)
    assert np.array_equal(first, sample(models, PROMPTS, [5, 6, 7]))


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_equals_the_plain_pipeline(models: DiffusionModels, guidance: float) -> None:
    plain = pipeline_of(models)(
        PROMPTS[:2],
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
        output_type="np",
    ).images
    np.testing.assert_allclose(sample(models, PROMPTS[:2], [5, 6], guidance=guidance), plain, atol=1e-5)


@pytest.mark.slow
def test_films_of_another_side_equal_the_plain_pipelines(models: DiffusionModels) -> None:
    """72 px are 18 latents, which the U-Net halves to 9 and to 5: what it doubles again must be cut to fit."""
    other = models.sharing().for_films_of(72)
    ours = sample(other, PROMPTS[:2], [5, 6])
    plain = pipeline_of(models)(
        PROMPTS[:2],
        height=72,
        width=72,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
        output_type="np",
    ).images
    assert ours.shape == (2, 72, 72, 3) and (models.resolution_px, other.resolution_px) == (64, 72)
    np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("side", [0, 66, "72", 72.0])
def test_a_side_of_no_whole_number_of_latents_is_refused(models: DiffusionModels, side: Any) -> None:
    with pytest.raises(ValueError, match=r"`resolution_px` must be a multiple of 4, .* but got"):
        models.sharing().for_films_of(side)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numerics", "bound"),
    [
        (Numerics("fp32", channels_last=True), 1e-4),
        (Numerics("bf16"), 0.06),
        (Numerics("fp16", channels_last=True), 0.01),
    ],
)
def test_another_precision_and_layout_give_nearly_the_same_images(
    models: DiffusionModels, numerics: Numerics, bound: float
) -> None:
    other = models.fresh().computing_in(numerics)
    assert {other.unet.dtype, other.vae.dtype, other.text_encoder.dtype} == {numerics.dtype, torch.float32}
    images, ours = sample(models, PROMPTS[:2], [5, 6]), sample(other, PROMPTS[:2], [5, 6])
    assert ours.dtype == np.float32
    error = np.abs(ours - images)
    assert error.max() < bound and error.mean() < bound / 8
    assert numerics.precision == "fp32" or error.max() > 1e-5  # else it was computed in float32


def test_images_decoded_a_few_at_a_time_are_the_same(models: DiffusionModels, monkeypatch: pytest.MonkeyPatch) -> None:
    together, decoded = sample(models, PROMPTS, [5, 6, 7], batch_size=3), []
    decode = models.vae.decode
    monkeypatch.setattr("trainables.sampling.images_at_a_time", lambda side_px: 2)
    monkeypatch.setattr(models.vae, "decode", lambda latents: decoded.append(len(latents)) or decode(latents))
    np.testing.assert_allclose(sample(models, PROMPTS, [5, 6, 7], batch_size=3), together, atol=1e-5)
    assert decoded == [2, 1]


def test_bytes_are_the_rounded_floats(models: DiffusionModels) -> None:
    floats = sample(models, PROMPTS[:1], [5])
    images = generate(models, PROMPTS[:1], [5], num_steps=3, guidance_scale=3.0, batch_size=1)
    assert images.dtype == np.uint8
    assert np.abs(images / 255.0 - floats).max() <= 0.5 / 255.0 + 1e-6
    assert to_uint8(torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.7])).tolist() == [0, 0, 128, 255, 255]


def test_progress_counts_every_image(models: DiffusionModels) -> None:
    done: list[int] = []
    generate(models, PROMPTS, [1, 2, 3], num_steps=1, guidance_scale=1.0, batch_size=2, on_progress=done.append)
    assert done == [2, 1]


def test_no_prompts_give_no_images(models: DiffusionModels) -> None:
    images = generate(models, [], [], num_steps=3, guidance_scale=3.0, batch_size=2)
    assert images.shape == (0, models.resolution_px, models.resolution_px, 3)


def test_models_come_back_in_the_mode_they_were_in(models: DiffusionModels) -> None:
    models.unet.train()
    with evaluating(models):
        assert not models.unet.training
    assert models.unet.training and not models.vae.training
    models.unet.eval()


def test_the_solver_starts_at_the_noisiest_level_of_the_base(models: DiffusionModels) -> None:
    scheduler = noise_scheduler_of(models.scheduler_config)
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == models.scheduler_config["num_train_timesteps"] - 1
    assert scheduler.config.beta_schedule == models.scheduler_config["beta_schedule"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1]}, r"`seeds` must be as many as `prompts` \(3\), but got 1"),
        ({"num_steps": 0}, "`num_steps` must be at least 1, but got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, but got 0"),
    ],
)
def test_bad_numbers_are_refused(models: DiffusionModels, change: dict[str, object], message: str) -> None:
    call = {"seeds": [1, 2, 3], "num_steps": 1, "guidance_scale": 1.0, "batch_size": 1} | change
    with pytest.raises(ValueError, match=message):
        generate(models, PROMPTS, **call)


def test_weights_that_diverged_give_no_black_images(models: DiffusionModels) -> None:
    broken = models.fresh()
    with torch.no_grad():
        broken.unet.conv_out.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="`images` must be finite, but got NaN or infinity in 1 of 1"):
        generate(broken, PROMPTS[:1], [5], num_steps=1, guidance_scale=1.0, batch_size=1)


def test_a_sheet_shows_images_row_by_row() -> None:
    images = np.stack([np.full((4, 4), value, np.uint8) for value in (0, 50, 100)])
    page = np.asarray(sheet(images, columns=2))
    corners = [(GAP_PX, GAP_PX), (GAP_PX, 2 * GAP_PX + 4), (2 * GAP_PX + 4, GAP_PX)]
    assert [int(page[row, column, 0]) for row, column in corners] == [0, 50, 100]
    assert page.shape == (3 * GAP_PX + 8, 3 * GAP_PX + 8, 3)


def test_a_labelled_sheet_is_as_wide_as_its_longest_row() -> None:
    grey = np.zeros((3, 4, 4), np.uint8)
    page = labelled_sheet({"Edema": grey, "No Finding": grey[:1]})
    assert page.width == sheet(grey, 3).width


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`images` and `columns` must be at least 1 each, but got 0 images"):
        sheet(np.zeros((0, 4, 4), np.uint8), 2)
