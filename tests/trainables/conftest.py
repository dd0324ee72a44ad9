"""A small prepared data set and a base model, shared by the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Phantom films of a few patients at 64 px."""
    source = PhantomSource(num_patients=32, resolution_px=64, seed=5)
    return write_dataset(source, tmp_path_factory.mktemp("data") / "phantom", on_progress=None)


@pytest.fixture(scope="session")
def base() -> DiffusionModels:
    """The bundled mini base; tests adapt copies of it."""
    return load_base("mini")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"
