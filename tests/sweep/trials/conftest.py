"""The films of these trials."""

from __future__ import annotations

import pytest

from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    source = PhantomSource(num_patients=40, resolution_px=64, seed=3)
    return write_dataset(source, tmp_path_factory.mktemp("data") / "phantom")
