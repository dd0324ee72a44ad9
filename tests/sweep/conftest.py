"""What tests share: a finished sweep, and the films of small collections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from film_folders import write_films

from trainables.datasets.phantom import source


@pytest.fixture(scope="session", autouse=True)
def _films_are_drawn_once() -> Iterator[None]:
    """Each takes 25 ms, and sweeps here see the same hundred again and again, which a phantom's seed decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "draw_film", lru_cache(maxsize=4096)(source.draw_film))
        yield


@pytest.fixture(scope="session")
def finished(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The directory of a sweep over the four strategies, evaluated after each epoch, and what it printed."""
    from small_sweep import sweep_of  # not above: tests without Ray do not wait for its imports

    out = tmp_path_factory.mktemp("sweep") / "r1 100% [b]x? #3&it's;"
    return out, sweep_of(out, 4, "training.evaluate_every_epochs=1", "search.scheduler=asha")


@pytest.fixture(scope="session")
def out(finished: tuple[Path, Result]) -> Path:
    return finished[0]


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
