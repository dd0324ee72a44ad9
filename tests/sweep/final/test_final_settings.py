"""What a final evaluation is told to do, and what of it stands in its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from analysis.front.pareto import Front, Objective
from analysis.run_folder import RunFolder
from sweep.final.settings import FinalSettings, final_settings
from sweep.final.studies import STUDIES


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


def test_the_verifiers_weights_are_an_input_of_the_benchmark_alone(tmp_path: Path) -> None:
    """An evaluation that is finished is not begun anew where they are given or left out; the benchmark's figures are."""
    weights = tmp_path / "verifier.pth"
    weights.write_bytes(b"")
    plain, given = (FinalSettings(images_per_condition=2, verifier_weights=path) for path in (None, weights))
    assert given.as_record() == plain.as_record() and given.as_record()["initial_weights"] is None
    without, with_them = (inputs_of(settings) for settings in (plain, given))
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert with_them == without | {"benchmark": {"verifier_weights": empty}} and without["benchmark"] == {}
    weights.write_bytes(b"others")
    assert inputs_of(given)["benchmark"] != with_them["benchmark"]


def inputs_of(settings: FinalSettings) -> dict[str, Mapping[str, Any]]:
    """Of each study."""
    bench: Any = SimpleNamespace(settings=settings, boxes=None)
    return {name: study.inputs(bench) for name, study in STUDIES.items()}


def test_the_record_has_the_hash_of_a_classifiers_weights(tmp_path: Path) -> None:
    weights = tmp_path / "classifier.safetensors"
    weights.write_bytes(b"weights")
    record = FinalSettings(images_per_condition=2, initial_weights=weights).as_record()
    assert record["initial_weights"] == hashlib.sha256(b"weights").hexdigest()
