"""Where latents are kept: the same folder for all sweeps of the same prepared films."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepared_sweeps import prepared_sweep
from trials_in_a_row import BITFIT

from sweep.config import DataConfig, SweepConfig
from sweep.engine import _evaluation_spec, _trial_context
from sweep.trials import latent_cache as module
from sweep.trials.latent_cache import latent_cache
from sweep.trials.settings import CacheConfig
from trainables.datasets.store import PreparedDataset


def test_it_is_beside_the_prepared_data_or_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = SweepConfig(data=DataConfig(source="prepared", path=tmp_path / "nih"))
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    assert {latent_cache(prepared, out) for out in runs} == {tmp_path / "nih.cache"}
    assert latent_cache(SweepConfig(), runs[0]) == runs[0] / "cache"  # films that are drawn belong to the run
    chosen = prepared.model_copy(update={"cache": CacheConfig(path=tmp_path / "fast")})
    assert {latent_cache(chosen, out) for out in runs} == {tmp_path / "fast"}
    monkeypatch.setattr(module.os, "access", lambda folder, mode: folder != tmp_path)
    assert latent_cache(prepared, runs[1]) == runs[1] / "cache"


@pytest.mark.slow
def test_trials_and_evaluation_are_told_of_the_films_and_trials_where_latents_are(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    config = SweepConfig(data=DataConfig(source="prepared", path=dataset.folder))
    prepared = prepared_sweep(config, dataset, tmp_path / "run")
    trial = _trial_context(prepared).spec("a", BITFIT)
    assert trial.fingerprint == _evaluation_spec(prepared).fingerprint == dataset.fingerprint
    assert trial.cache_folder == dataset.folder.with_name(f"{dataset.folder.name}.cache")


def test_a_relative_folder_is_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = SweepConfig(cache=CacheConfig(path=Path("latents"))).located()
    assert latent_cache(config, tmp_path / "run") == tmp_path / "latents"
