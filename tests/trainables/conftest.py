"""A small prepared data set and a base model, shared by the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_films import SmallPhantom

from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Small phantom films of a few patients."""
    return write_dataset(
        SmallPhantom(num_patients=32, seed=5), tmp_path_factory.mktemp("data") / "phantom", on_progress=None
    )


@pytest.fixture(scope="session")
def base() -> DiffusionModels:
    """The bundled mini base; tests adapt copies of it."""
    return load_base("mini")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache folder."""
    return tmp_path / "cache"
