"""Variants of training films: small changes in closed form, the same for all trials, and none where none is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_of import batch_of
from film_folders import film
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage, stats

from sweep.config import ConfigError
from sweep.loading import load_config
from trainables.augmentation import Change, Films, change_of, changed
from trainables.base_models.models import DiffusionModels
from trainables.datasets.store import PreparedDataset
from trainables.draws import EpochDraws
from trainables.feeding import BatchFeeder
from trainables.settings import AugmentationConfig

FILM = film(3).astype(np.uint8)
SIDE = len(FILM)
SMALL = AugmentationConfig(rotation_degrees=7, shift=0.05, gamma=1.3, variants=3)
Grey = NDArray[np.uint8]


def moved(grey: Grey, right: int, down: int) -> Grey:
    """By whole pixels, with the border's grey going on."""
    across, along = np.clip(np.arange(SIDE) - right, 0, SIDE - 1), np.clip(np.arange(SIDE) - down, 0, SIDE - 1)
    return grey[along][:, across]


CASES: list[tuple[Change, Callable[[Grey], Grey]]] = [
    (Change(), lambda grey: grey),
    (Change(right=4 / SIDE), lambda grey: moved(grey, 4, 0)),
    (Change(right=-2 / SIDE, down=7 / SIDE), lambda grey: moved(grey, -2, 7)),
    (Change(angle=90), np.rot90),
    (Change(angle=-90), lambda grey: np.rot90(grey, -1)),
    (Change(exponent=2), lambda grey: np.rint((grey / 255.0) ** 2 * 255).astype(np.uint8)),
    (Change(is_mirrored=True), lambda grey: grey[:, ::-1]),
    (Change(is_mirrored=True, right=3 / SIDE), lambda grey: moved(grey[:, ::-1], 3, 0)),
]


@pytest.mark.parametrize(("change", "by_hand"), CASES)
def test_each_change_is_what_it_says(change: Change, by_hand: Callable[[Grey], Grey]) -> None:
    np.testing.assert_array_equal(changed(FILM, change), by_hand(FILM))


@pytest.mark.parametrize("change", [Change(angle=6.5), Change(angle=-4, right=0.031, down=-0.047), Change(down=0.013)])
def test_a_turned_and_moved_film_is_that_of_scipy(change: Change) -> None:
    """Which maps each pixel back: about the middle, by the angle's cosine and sine, rows first."""
    cos, sin = math.cos(math.radians(change.angle)), math.sin(math.radians(change.angle))
    back, middle = np.array([[cos, sin], [-sin, cos]]), np.full(2, (SIDE - 1) / 2)
    offset = middle - back @ (middle + SIDE * np.array([change.down, change.right]))
    expected = ndimage.affine_transform(FILM.astype(float), back, offset, order=3, mode="nearest")
    difference = np.abs(changed(FILM, change) - np.clip(expected, 0, 255))
    assert difference[4:-4, 4:-4].max() < 4 and difference.max() < 12 and difference.mean() < 1


def test_changes_are_even_within_the_limits_and_a_heart_stays_left() -> None:
    drawn = [change_of(SMALL, row, variant) for row in range(400) for variant in (1, 2)]
    shares = {
        "angle": [change.angle / 7 for change in drawn],
        "right": [change.right / 0.05 for change in drawn],
        "down": [change.down / 0.05 for change in drawn],
        "gamma": [math.log(change.exponent, 1.3) for change in drawn],
    }
    for name, values in shares.items():
        assert stats.kstest(values, stats.uniform(-1, 2).cdf).pvalue > 1e-3, name
    assert np.abs(np.corrcoef(list(shares.values())) - np.eye(4)).max() < 0.15
    assert not any(change.is_mirrored for change in drawn)
    asked = AugmentationConfig(flip=True)
    assert 0.4 < np.mean([change_of(asked, row, 1).is_mirrored for row in range(400)]) < 0.6
    assert not any(change_of(asked, row, 0).is_mirrored for row in range(40))


def test_an_epoch_takes_each_variant_as_often_and_by_seed_epoch_and_row_alone() -> None:
    rows = np.arange(3000)
    variants = EpochDraws(1, 2, 3000).variants(rows, 3)
    assert stats.chisquare(np.bincount(variants, minlength=3)).pvalue > 1e-3
    some = np.array([7, 2999, 0])
    assert np.array_equal(EpochDraws(1, 2, 3000).variants(some, 3), variants[some])
    others = [EpochDraws(seed, epoch, 3000).variants(rows, 3) for seed, epoch in ((0, 2), (1, 1))]
    assert all(0.25 < np.mean(other == variants) < 0.42 for other in others)


def test_other_draws_are_as_they_were_without_variants() -> None:
    draws, rows = EpochDraws(4, 9, 50), np.arange(50)
    draws.variants(rows, 4)
    shares = np.random.default_rng((4, 9, 2)).random((50, 3))
    assert draws.timesteps(rows, 1000).tolist() == (shares[:, 0] * 1000).astype(int).tolist()
    assert np.array_equal(draws.chances(rows), shares[:, 1])


@pytest.mark.slow
def test_films_lie_first_as_they_are_and_then_variant_by_variant(dataset: PreparedDataset) -> None:
    split = dataset.split("train")
    films, count = Films(split, SMALL), len(split)
    assert len(films) == 3 * count and films.key and films.resolution_px == split.resolution_px
    images = films.images(np.array([2, count + 5, 2 * count + 5]))
    expected = [split.image(2), *(changed(split.image(5), change_of(SMALL, 5, variant)) for variant in (1, 2))]
    assert np.array_equal(images, np.stack(expected)) and not np.array_equal(images[1], images[2])
    rows, draws = np.array([4, 0]), EpochDraws(0, 1, count)
    assert films.places(rows, draws).tolist() == (rows + count * draws.variants(rows, 3)).tolist()
    plain = Films(split, AugmentationConfig(variants=9))
    assert (len(plain), plain.key) == (count, "") and plain.places(rows, draws) is rows


def feeder(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path | None, config: AugmentationConfig
) -> BatchFeeder:
    return BatchFeeder(
        models=base,
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=(),
        cache_folder=cache,
        caption_dropout=0.0,
        augmentation=config,
    )


@pytest.mark.slow
def test_what_is_cached_is_what_would_be_computed_from_each_variant(
    base: DiffusionModels, dataset: PreparedDataset, cache: Path
) -> None:
    """And an un-augmented training reads the cache that it always read."""
    rows, draws = np.arange(12), EpochDraws(2, 1, len(dataset.split("train")))
    cached, computed = (feeder(base, dataset, folder, SMALL) for folder in (cache, None))
    latents, pixels = batch_of(cached, rows, draws)["latents"], batch_of(computed, rows, draws)
    with torch.no_grad():
        moments = base.vae.encode(pixels["pixels"]).latent_dist.parameters
    torch.testing.assert_close(latents, cached._latents(moments, pixels["latent_noise"]), rtol=1e-4, atol=1e-4)
    plain = batch_of(feeder(base, dataset, cache, AugmentationConfig()), rows, draws)
    as_they_are = torch.from_numpy(draws.variants(rows, 3) == 0)
    differs = (plain["latents"] - latents).abs().amax((1, 2, 3)) > 1e-3
    assert as_they_are.any() and torch.equal(differs, ~as_they_are) and torch.equal(plain["noise"], pixels["noise"])
    keys = sorted(path.parent.name.partition("float32")[2].count("-") for path in (cache / "moments").rglob("*.arrow"))
    assert keys == [0, 1]


def test_it_is_off_unless_asked_for_and_every_key_is_reached() -> None:
    assert not load_config("demo").training.augmentation.is_on and not AugmentationConfig(variants=8).is_on
    config = load_config("demo", None, ["training.augmentation.rotation_degrees=5", "training.augmentation.flip=true"])
    assert config.training.augmentation == AugmentationConfig(rotation_degrees=5, flip=True)
    assert (
        config.training.augmentation.is_on
        and AugmentationConfig(gamma=1.2).is_on
        and AugmentationConfig(shift=1e-2).is_on
    )
    with pytest.raises(ConfigError, match=r"training\.augmentation\.rotation_degrees"):
        load_config("demo", None, ["training.augmentation.rotation=5"])
    for bad in ({"rotation_degrees": 46}, {"shift": -0.1}, {"gamma": 0.9}, {"variants": 1}):
        with pytest.raises(ValidationError):
            AugmentationConfig(**bad)  # type: ignore[arg-type]
