"""Films that are not there or cannot be read: few may be left out, where the user says so; more stop with their list."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import folder

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.parallel import Item, Result, in_order
from trainables.datasets.problems import CollectionError
from trainables.datasets.scan import PixelHash

DAMAGES = {"0.png": b"", "1.png": b"no picture", "2.png": None}


@pytest.fixture
def damaged(tmp_path: Path) -> SourceOptions:
    options = folder(tmp_path)
    for name, content in DAMAGES.items():
        path = tmp_path / "films" / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    return options


def test_few_rejects_are_left_out_and_named(damaged: SourceOptions) -> None:
    source = FolderSource.create(replace(damaged, max_rejects=0.02))
    assert sum(source.num_samples(split) for split in SPLITS) == 147
    (said,) = [sentence for sentence in source.said if "rejected" in sentence]
    assert said.startswith("3 films of 150 are rejected") and "films/2.png" in said and "films/0.png" in said


def test_all_that_are_left_out_are_named(damaged: SourceOptions, tmp_path: Path) -> None:
    for number in (3, 4):
        (tmp_path / "films" / f"{number}.png").write_bytes(b"")
    (said,) = [
        sentence for sentence in FolderSource.create(replace(damaged, max_rejects=0.04)).said if "rejected" in sentence
    ]
    assert all(f"films/{number}.png" in said for number in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.019])
def test_more_stop_with_their_list(damaged: SourceOptions, share: float) -> None:
    damaged = replace(damaged, max_rejects=share)
    with pytest.raises(CollectionError, match=r"must name only images that are there|must be readable"):
        FolderSource.create(damaged)
    problems = FolderSource.check(damaged).problems
    assert len(problems) == 3 and {problem.file for problem in problems} == {
        "metadata.jsonl",
        "films/0.png",
        "films/1.png",
    }


def test_a_film_that_goes_after_it_was_looked_at_is_named(tmp_path: Path) -> None:
    """Copies are read twice."""
    options, film = folder(tmp_path), tmp_path / "films" / "0.png"
    shutil.copy(film, tmp_path / "films" / "40.png")
    content = film.read_bytes()

    def going(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        if isinstance(work, PixelHash):
            film.unlink()
        return in_order(work, items)

    options = replace(options, mapper=going)
    with pytest.raises(CollectionError, match=r"must be readable, but got .*No such file.* in films/0\.png"):
        FolderSource.create(options)
    film.write_bytes(content)
    assert [problem.file for problem in FolderSource.check(options).problems] == ["films/0.png"]
