"""A collection of films whose table each test writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from film_folders import write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_films(folder)
    return folder / "images"


@pytest.fixture
def root(tmp_path: Path, films: Path) -> Path:
    """A collection without a table whose films are links: replacing one leaves the others as they are."""
    (tmp_path / "raw" / "images").mkdir(parents=True)
    for path in films.iterdir():
        (tmp_path / "raw" / "images" / path.name).symlink_to(path)
    return tmp_path / "raw"
