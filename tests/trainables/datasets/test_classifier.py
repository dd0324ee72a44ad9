"""The bundled chest classifier: how it is scored, and that the shipped weights still know the phantom's findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from trainables.base_models.train_classifier import (
    area_under_curve,
    areas_by_condition,
    augment,
    build_network,
    load_films,
    normalise,
)
from trainables.datasets.phantom import PhantomSource

WEIGHTS = Path(__file__).resolve().parents[3] / "analysis" / "features" / "mini" / "weights.safetensors"


@pytest.mark.parametrize(
    ("scores", "present", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [False, False, True, True], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], 0.0),
        ([0.5, 0.5, 0.5], [False, True, True], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
    ],
)
def test_area_under_curve_closed_forms(scores: list[float], present: list[bool], area: float) -> None:
    assert area_under_curve(np.array(scores), np.array(present)) == pytest.approx(area)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40))
def test_area_under_curve_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, present = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    if present.all() or not present.any():
        with pytest.raises(ValueError, match="`present` must hold both"):
            area_under_curve(scores, present)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[present] for b in scores[~present]]
    assert area_under_curve(scores, present) == pytest.approx(np.mean(pairs))


def test_inputs_are_in_torchxrayvisions_range() -> None:
    from torchxrayvision.datasets import normalize

    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ours = normalise(torch.from_numpy(image)[None])[0, 0].numpy()
    np.testing.assert_allclose(ours, normalize(image.astype(np.float32), 255), atol=1e-3)


def test_augmented_films_stay_films() -> None:
    images = torch.arange(4096, dtype=torch.int32).remainder(256).to(torch.uint8).reshape(1, 64, 64).repeat(3, 1, 1)
    varied = augment(images, torch.Generator().manual_seed(0))
    assert varied.shape == (3, 64, 64)
    assert float(varied.min()) >= 0 and float(varied.max()) <= 255
    assert not torch.equal(varied[0], varied[1])


@pytest.mark.slow
def test_the_shipped_weights_know_every_finding_of_unseen_patients() -> None:
    network = build_network()
    network.load_state_dict(load_file(WEIGHTS))
    areas = areas_by_condition(network, load_films(PhantomSource(num_patients=150, seed=11), "train"))
    assert min(areas.values()) >= 0.95, areas
