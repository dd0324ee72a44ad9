"""Where latents are kept: the same folder for all sweeps of the same prepared films."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.config import DataConfig, SweepConfig
from sweep.trials import latent_cache as module
from sweep.trials.latent_cache import latent_cache
from sweep.trials.settings import CacheConfig


def test_it_is_beside_the_prepared_data_or_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = SweepConfig(data=DataConfig(source="prepared", path=tmp_path / "nih"))
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    assert {latent_cache(prepared, out) for out in runs} == {tmp_path / "nih.cache"}
    assert latent_cache(SweepConfig(), runs[0]) == runs[0] / "cache"  # films that are drawn belong to the run
    chosen = prepared.model_copy(update={"cache": CacheConfig(path=tmp_path / "fast")})
    assert {latent_cache(chosen, out) for out in runs} == {tmp_path / "fast"}
    monkeypatch.setattr(module.os, "access", lambda folder, mode: folder != tmp_path)
    assert latent_cache(prepared, runs[1]) == runs[1] / "cache"


def test_a_relative_folder_is_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = SweepConfig(cache=CacheConfig(path=Path("latents"))).located()
    assert latent_cache(config, tmp_path / "run") == tmp_path / "latents"
