"""What a scorer does whose device, films or disk go while it works."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from PIL import Image
from ray import cloudpickle

from sweep.scoring.scorer import AdapterScorer, EvaluationSpec
from trainables.base_models.models import DiffusionModels, load_base
from trainables.datasets.store import DataChangedError, PreparedDataset

pytestmark = pytest.mark.slow


class LosesDevice(AdapterScorer):
    """A scorer whose first process has lost its device before its base model is there."""

    def __init__(self, spec: EvaluationSpec, folder: Path) -> None:
        super().__init__(spec)
        self.is_first = not list(folder.iterdir())
        (folder / f"{os.getpid()}").touch()

    @property
    def base(self) -> DiffusionModels:  # type: ignore[override]
        if self.is_first:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        return load_base("mini")


@pytest.mark.parametrize("asked", ["prepare", "score"])
def test_a_scorer_that_loses_its_device_while_it_loads_is_started_anew(
    ray_cluster: None, spec: EvaluationSpec, tmp_path: Path, asked: str
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (tmp_path / "processes").mkdir()
    restarted = ray.remote(LosesDevice).options(num_cpus=0, max_restarts=1, max_task_retries=1)
    scorer = restarted.remote(spec, tmp_path / "processes")
    sheet = tmp_path / "sheet.png"
    ray.get(scorer.prepare.remote(sheet) if asked == "prepare" else scorer.score.remote(None, sheet))
    assert len(list((tmp_path / "processes").iterdir())) == 2


def test_films_that_are_not_those_that_the_sweep_began_with_are_not_compared_with(
    spec: EvaluationSpec, dataset: PreparedDataset, tmp_path: Path
) -> None:
    """As where another process has prepared them anew while the sweep ran, or has taken them away."""
    folder = shutil.copytree(dataset.folder, tmp_path / "data")
    scorer = AdapterScorer(replace(spec, dataset=folder, fingerprint=dataset.fingerprint))
    scorer.score(None, tmp_path / "baseline.png")
    card = (folder / "dataset.json").read_text()
    for left, came in ((card.replace(dataset.fingerprint, "of now"), "of now"), ("", "none that can be read")):
        (folder / "dataset.json").write_text(left)
        for ask in (scorer.score, lambda *_: scorer.prepare(tmp_path / "reference.png")):
            with pytest.raises(DataChangedError, match=f"began with, {dataset.fingerprint}, but got {came} in"):
                ask(None, tmp_path / "baseline.png")


def test_a_sheet_is_whole_or_as_it_was(spec: EvaluationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, sheet = AdapterScorer(spec), tmp_path / "reference.png"
    scorer.save_reference_sheet(sheet)
    whole = sheet.read_bytes()

    def full(image: Image.Image, file: Any, *of: object, **settings: object) -> None:
        if isinstance(file, Path):
            file.write_bytes(whole[:50])
        else:
            file.write(whole[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        scorer.save_reference_sheet(sheet)
    assert sheet.read_bytes() == whole and [path.name for path in tmp_path.glob("*reference*")] == ["reference.png"]
