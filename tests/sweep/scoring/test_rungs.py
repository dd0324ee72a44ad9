"""How evaluations grow with the training that is done, and films that pass by in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.features import load_extractor
from sweep.config import EvaluationConfig
from sweep.scoring.identity import sampling_digest
from sweep.scoring.rungs import at_rung, earlier_image_counts
from sweep.scoring.streaming import drawn, extract_and_keep, regrouped
from trainables.datasets.tensors import TensorCache
from trainables.numerics import FULL, Numerics

CONFIG = EvaluationConfig(images_per_condition=32, num_steps=20, early_images_share=0.125, early_steps_share=0.5)


@pytest.mark.parametrize(
    ("share_done", "images", "steps"),
    [(1 / 40, 4, 10), (0.125, 4, 10), (0.25, 8, 10), (0.49, 8, 10), (0.5, 16, 10), (0.99, 16, 10), (1.0, 32, 20)],
)
def test_images_and_steps_grow_by_doublings_to_all(share_done: float, images: int, steps: int) -> None:
    rung = at_rung(CONFIG, share_done)
    assert (rung.images_per_condition, rung.num_steps) == (images, steps)
    assert (rung == CONFIG) == (share_done == 1.0)


@given(
    st.integers(2, 500), st.floats(0.001, 1), st.floats(0.001, 1), st.tuples(st.floats(0.001, 1), st.floats(0.001, 1))
)
def test_a_later_rung_is_never_less(images: int, first: float, second: float, shares: tuple[float, float]) -> None:
    config = EvaluationConfig(images_per_condition=images, early_images_share=shares[0], early_steps_share=shares[1])
    early, late = (at_rung(config, share) for share in sorted((first, second)))
    assert 2 <= early.images_per_condition <= late.images_per_condition <= images
    assert 1 <= early.num_steps <= late.num_steps <= config.num_steps
    due = {at_rung(config, share).images_per_condition for share in 0.5 ** np.arange(12.0)}
    counts = list(earlier_image_counts(config, images))
    assert counts == sorted((count for count in due if count < images), reverse=True)


@pytest.mark.parametrize("share_done", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share_done: float) -> None:
    with pytest.raises(ValueError, match="`share_done` must be above 0 and at most 1, but got"):
        at_rung(CONFIG, share_done)


def test_films_in_other_batches_are_the_same_films() -> None:
    films = torch.randint(0, 255, (23, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = list(regrouped((films[start : start + 5] for start in range(0, 23, 5)), 8))
    assert [len(part) for part in parts] == [8, 8, 7]
    assert torch.equal(torch.cat(parts), films)
    assert list(regrouped([], 8)) == []


@pytest.mark.slow
def test_features_by_batches_are_those_of_all_at_once_to_the_bit() -> None:
    rng, extractor = np.random.default_rng(1), load_extractor("mini")
    films = rng.integers(0, 255, (150, 64, 64, 3), dtype=np.uint8)
    shown, every = rng.random(150) < 0.2, np.ones(150, bool)
    batches = torch.from_numpy(films).split(7)
    features, kept = extract_and_keep(drawn(batches, shown), extractor, every)
    grey = films.mean(axis=-1, dtype=np.float32).round().astype(np.uint8)
    assert np.array_equal(features, extractor.extract(grey)) and np.array_equal(kept, films[shown])
    some, _ = extract_and_keep(drawn([torch.from_numpy(films)], shown), extractor, shown)
    assert np.allclose(some, features[shown], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numerics", [FULL, Numerics("bf16", channels_last=True)])
@pytest.mark.parametrize("guidance", [4.0, 1000.0, 1e-7])
def test_what_films_depend_on_names_the_file_that_holds_them(
    tmp_path: Path, numerics: Numerics, guidance: float
) -> None:
    digest = sampling_digest(EvaluationConfig(guidance_scale=guidance), numerics)
    assert TensorCache(tmp_path).path(f"0123abcd-{digest}", "films").is_relative_to(tmp_path)
