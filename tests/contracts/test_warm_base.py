"""One warm base for all adapters: each goes onto it and comes off, and it stays as it is, to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fingerprints import fingerprint
from numpy.typing import NDArray
from small_films import SIDE_PX
from strategy_examples import EXAMPLES

from sweep.scoring.studio import with_adapter
from trainables.base_models.models import DiffusionModels, load_base
from trainables.numerics import Numerics
from trainables.sampling import generate_batches
from trainables.strategies import Strategy, load_adapter, make_strategy
from trainables.strategies.base import trained_parameters

HALF = Numerics("bf16", channels_last=True)


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini").for_films_of(SIDE_PX)


@pytest.fixture(scope="module")
def half() -> DiffusionModels:
    return load_base("mini").for_films_of(SIDE_PX).computing_in(HALF)


def sample(models: DiffusionModels) -> NDArray[np.float32]:
    options = {"num_steps": 1, "guidance_scale": 2.0, "batch_size": 1}
    return next(generate_batches(models, ["a chest film with edema"], [3], **options)).numpy()


@dataclass(frozen=True)
class Before:
    """What bases are before any adapter has come, and what one gives."""

    base: str
    half: str
    film: NDArray[np.float32]


@pytest.fixture(scope="module")
def before(base: DiffusionModels, half: DiffusionModels) -> Before:
    return Before(fingerprint(base), fingerprint(half), sample(base))


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def adapter(
    request: pytest.FixtureRequest, base: DiffusionModels, before: Before, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Of each strategy one whose numbers all differ from the base's."""
    example = EXAMPLES[request.param]
    models, strategy = base.fresh(), make_strategy(example.strategy or request.param, example.hyperparameters)
    torch.manual_seed(0)
    strategy.attach(models)
    with torch.no_grad():
        for _, parameter in trained_parameters(models):
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("adapter")
    strategy.export(models, folder)
    return folder


@pytest.fixture(scope="module")
def copied(base: DiffusionModels, adapter: Path) -> tuple[Strategy, NDArray[np.float32]]:
    """The adapter's strategy, and what a copy of the base gives with it."""
    models = base.fresh()
    return load_adapter(models, adapter), sample(models)


@pytest.mark.slow
def test_adapters_go_onto_one_warm_base_and_come_off_merged_or_not_and_the_base_is_restored_to_the_bit(
    base: DiffusionModels, before: Before, adapter: Path, copied: tuple[Strategy, NDArray[np.float32]]
) -> None:
    """The base is that of the whole module: every adapter finds it as all before have left it."""
    shared, (strategy, expected) = with_adapter(base, adapter), copied
    film = sample(shared)
    assert np.array_equal(film, expected)
    assert not np.array_equal(film, before.film)  # else this test shows nothing
    strategy.merged(shared)
    assert np.allclose(sample(shared), film, atol=1e-3)
    del shared
    assert fingerprint(base) == before.base and np.array_equal(sample(base), before.film)


@pytest.mark.slow
def test_in_half_precision_it_gives_nearly_the_same_and_leaves_the_base_as_well(
    half: DiffusionModels, before: Before, adapter: Path, copied: tuple[Strategy, NDArray[np.float32]]
) -> None:
    shared = half.sharing()
    load_adapter(shared, adapter)
    error = np.abs(sample(shared) - copied[1])
    assert 0 < error.mean() < 0.02 and error.max() < 0.3
    assert fingerprint(half) == before.half


def test_a_shared_base_takes_no_memory_of_its_own(base: DiffusionModels) -> None:
    ours, theirs = (
        {name: p.data_ptr() for name, p in models.unet.named_parameters()} for models in (base, base.sharing())
    )
    assert ours == theirs
