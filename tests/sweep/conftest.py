"""What tests share: a finished sweep's trials, and the films of small collections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest
from film_folders import write_films

from trainables.datasets.phantom import source


@pytest.fixture(scope="session", autouse=True)
def _films_are_drawn_once() -> Iterator[None]:
    """Each takes 25 ms, and sweeps here see the same ones again and again, which a phantom's seed decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "draw_film", lru_cache(maxsize=4096)(source.draw_film))
        yield


@pytest.fixture(scope="session")
def trials(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "trials.parquet")


@pytest.fixture(scope="session")
def raw_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_films(folder)
    return folder / "images"


@pytest.fixture
def root(tmp_path: Path, raw_films: Path) -> Path:
    """A collection without a table whose films are hard links: replacing one leaves the others as they are."""
    (tmp_path / "raw" / "images").mkdir(parents=True)
    for path in raw_films.iterdir():
        (tmp_path / "raw" / "images" / path.name).hardlink_to(path)
    return tmp_path / "raw"
