"""The train function of a trial: what its seed decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.settings import TrainingConfig
from trainables.strategies.base import trained_parameters
from trainables.trial import TrialSpec, attached, strategy_of


def _spec(seed: int) -> TrialSpec:
    return TrialSpec(
        base="mini", dataset=Path("data"), folder=Path("trial"), cache_folder=Path("cache"),
        strategy={"name": "lora", "rank": 2}, lr=1e-3, batch_size=8, seed=seed, training=TrainingConfig(),
    )  # fmt: skip


def _start(seed: int) -> dict[str, torch.Tensor]:
    spec = _spec(seed)
    models = attached(spec, strategy_of(spec))
    return {name: parameter.detach() for name, parameter in trained_parameters(models)}


@pytest.fixture(autouse=True)
def _keep_the_global_generator() -> object:
    with torch.random.fork_rng(devices=[]):
        yield


def test_the_seed_alone_decides_where_an_adapter_starts() -> None:
    """A reused process has drawn other random numbers before."""
    torch.manual_seed(1)
    first = _start(seed=7)
    torch.manual_seed(2)
    again, other = _start(seed=7), _start(seed=8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
