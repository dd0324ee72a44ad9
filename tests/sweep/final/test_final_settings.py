"""What a final evaluation is told to do, and what of it stands in its record."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.front.pareto import Front, Objective
from analysis.run_folder import RunFolder
from sweep.final.settings import FinalSettings, final_settings


def run_of(folder: Path, preset: str) -> RunFolder:
    config = {"preset": preset, "evaluation": {"images_per_condition": 5}}
    front = Front(objectives=(Objective("fid_mini", "min"),), points=())
    return RunFolder(
        folder=folder, trials=pd.DataFrame(), results=pd.DataFrame(), front=front, config=config, baseline={}
    )


def test_privacy_is_for_the_benchmark_alone(tmp_path: Path) -> None:
    weights = tmp_path / "verifier.pth"
    weights.write_bytes(b"weights")
    with pytest.raises(ValueError, match="must be for a run of the preset chexgenbench, but got one of demo"):
        final_settings(run_of(tmp_path, "demo"), None, None, initial_weights=None, verifier_weights=weights)
    run = run_of(tmp_path, "chexgenbench")
    settings = final_settings(run, None, None, initial_weights=None, verifier_weights=weights)
    assert (settings.images_per_condition, settings.verifier_weights) == (5, weights)


def test_the_record_has_a_files_hash_and_nothing_of_what_is_not_asked_for(tmp_path: Path) -> None:
    """Evaluations of earlier versions go on: their records do not know of such weights."""
    plain = FinalSettings(images_per_condition=2).as_record()
    assert "verifier_weights" not in plain and plain["initial_weights"] is None
    (tmp_path / "verifier.pth").write_bytes(b"")
    record = FinalSettings(images_per_condition=2, verifier_weights=tmp_path / "verifier.pth").as_record()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert record == plain | {"verifier_weights": empty}
