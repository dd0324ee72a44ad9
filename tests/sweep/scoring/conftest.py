"""The films of these tests, and how they are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.config import EvaluationConfig
from sweep.scoring.scorer import EvaluationSpec
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    source = PhantomSource(num_patients=60, resolution_px=64, seed=2)
    return write_dataset(source, tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture
def spec(dataset: PreparedDataset, tmp_path: Path) -> EvaluationSpec:
    config = EvaluationConfig(images_per_condition=3, num_steps=2, batch_size=4)
    return EvaluationSpec(
        base="mini",
        dataset=dataset.folder,
        conditions=("Edema", "No Finding"),
        cache_folder=tmp_path,
        seed=1,
        config=config,
    )
