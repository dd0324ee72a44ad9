"""Pictures that wait between the first look and the writing: the same ones, and none where there is no room."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_files import num_open
from patience import until
from PIL import Image
from stand_ins import EVALUATED, folder

from trainables.datasets import waiting
from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.labels import FilmLabels
from trainables.datasets.one_film import Film
from trainables.datasets.problems import CollectionError
from trainables.datasets.scan import _hundredths
from trainables.datasets.waiting import waiting_films
from trainables.datasets.writing import write_dataset


@pytest.mark.slow
def test_films_that_are_decoded_once_are_those_that_are_decoded_twice(tmp_path: Path) -> None:
    folder(tmp_path / "films")
    options = SourceOptions(root=tmp_path / "films", conditions=("No Finding",))
    twice = FolderSource.create(options)
    once = FolderSource.create(replace(options, scratch=tmp_path))
    assert once.fingerprint() == twice.fingerprint()
    ours, others = ([sample for split in SPLITS for sample in source.samples(split)] for source in (once, twice))
    assert len(ours) == 150 and [path.name for path in tmp_path.iterdir()] == ["films"]
    for sample, other in zip(ours, others, strict=True):
        assert np.array_equal(sample.image, other.image) and replace(sample, image=other.image) == other
    shutil.rmtree(tmp_path / "films")
    assert len(list(once.samples_after("train", 3))) == once.num_samples("train") - 3
    with pytest.raises(ValueError, match="must be readable"):
        next(twice.samples("train"))


def files_in(prepared: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prepared.iterdir())}


def refuses(number: int) -> Callable[..., int]:
    """A function of the system that answers with an error."""

    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def fails_from(call: int) -> Callable[..., int]:
    """Writing to a disk that is full after so many calls."""
    write, calls = os.pwrite, iter(range(call))

    def pwrite(handle: int, content: bytes, place: int) -> int:
        return write(handle, content, place) if next(calls, None) is not None else refuses(errno.ENOSPC)()

    return pwrite


def takes_no_direct_writes() -> Callable[..., int]:
    """A file system that opens files for them, and has none."""
    write = os.pwrite

    def pwrite(handle: int, content: bytes, place: int) -> int:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            refuses(errno.EINVAL)()
        return write(handle, content, place)

    return pwrite


SYSTEMS: dict[str, tuple[str, Callable[..., int] | int] | None] = {
    "as it is": None,
    "no name later": ("link", refuses(errno.EXDEV)),
    "no nameless files": ("O_TMPFILE", 0),
    "full at once": ("pwrite", fails_from(0)),
    "full at the second split": ("pwrite", fails_from(1)),
    "no direct writes": ("pwrite", takes_no_direct_writes()),
}


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainables.datasets.tensors.BATCH_BYTES", 20 * 64**2)
        yield


@pytest.fixture(scope="module")
def rejecting(tmp_path_factory: pytest.TempPathFactory) -> SourceOptions:
    """Films of which one cannot be read."""
    options = folder(root := tmp_path_factory.mktemp("raw"))
    (root / "films" / "31.png").write_bytes(b"none")
    return options


@pytest.fixture(scope="module")
def twice(rejecting: SourceOptions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data set of these films, which are read again when they are written."""
    to = tmp_path_factory.mktemp("twice") / "prepared"
    return files_in(write_dataset(FolderSource.create(rejecting), to).folder)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_data_set_is_the_same_bytes_whatever_the_system_can(
    rejecting: SourceOptions,
    twice: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
) -> None:
    """Films that all stay are written once; a second data set of the same source is another file."""
    if change := SYSTEMS[system]:
        monkeypatch.setattr(os, *change)
    source = FolderSource.create(replace(rejecting, scratch=tmp_path))
    assert source._waiting is not None and source._waiting.completed() == (not system.startswith("full"))
    monkeypatch.undo()
    if system == "no name later":
        monkeypatch.setattr(os, "link", refuses(errno.EXDEV))
    with monkeypatch.context() as patched:
        if system in ("as it is", "no direct writes"):
            patched.setattr("trainables.datasets.writing.film_writer", lambda *_: pytest.fail("written twice"))
        assert files_in(write_dataset(source, tmp_path / "first").folder) == twice
    assert files_in(write_dataset(source, tmp_path / "second").folder) == twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert not (tmp_path / "first" / "train.arrow").samefile(tmp_path / "second" / "train.arrow")


def with_copies(root: Path) -> None:
    """One picture in several splits, of which all but one are left out."""
    for number in range(10, 150, 10):
        shutil.copy(root / "films" / "0.png", root / "films" / f"{number}.png")


def with_deep_films(root: Path) -> None:
    """Films of which black and white are known when all were looked at."""
    for number in range(0, 150, 2):
        grey = np.asarray(Image.open(path := root / "films" / f"{number}.png").convert("L"), np.uint16)
        Image.fromarray(grey * 257).save(path)


def with_a_copy_for_a_deep_film(root: Path) -> None:
    """As many films of a split are left out as do not wait."""
    films = FolderSource.create(SourceOptions(root=root, conditions=EVALUATED)).films
    copy, deep, other = (film.path for film in (*films["train"][:2], films["test"][0]))
    assert isinstance(copy, Path) and isinstance(deep, Path) and isinstance(other, Path)
    shutil.copy(other, copy)
    Image.fromarray(np.asarray(Image.open(deep).convert("L"), np.uint16) * 257).save(deep)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "options"),
    [
        (with_copies, {}),
        (with_deep_films, {}),
        (with_a_copy_for_a_deep_film, {}),
        (lambda root: None, {"num_train": 20}),
    ],
)
def test_where_films_are_left_out_after_all_the_others_are_the_same_bytes(
    tmp_path: Path, change: Callable[[Path], None], options: dict[str, int]
) -> None:
    raw = folder(tmp_path / "raw")
    change(tmp_path / "raw")
    sources = [
        FolderSource.create(replace(raw, scratch=scratch, **options))  # type: ignore[arg-type]
        for scratch in (None, tmp_path)
    ]
    twice, once = (files_in(write_dataset(source, tmp_path / str(n)).folder) for n, source in enumerate(sources))
    assert once == twice


def test_where_there_is_no_room_or_no_way_to_open_them_films_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = SourceOptions().template()
    assert waiting_films(None, 1, 64, prompts) is None
    assert waiting_films(tmp_path, shutil.disk_usage(tmp_path).free // 64**2, 64, prompts) is None
    assert waiting_films(tmp_path, 3, 64, prompts) is not None
    monkeypatch.setattr(waiting, "OPEN_FILES", tmp_path / "none")
    assert waiting_films(tmp_path, 3, 64, prompts) is None


def test_a_disk_that_fails_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is written behind, it is told by a film some way on, or when the files are to be complete."""
    picture = np.zeros((1024, 1024), np.uint8)
    monkeypatch.setattr(os, "pwrite", refuses(errno.EIO))
    for num_films in (20, 2):
        films = waiting_films(tmp_path, num_films, 1024, SourceOptions().template())
        assert films is not None
        with pytest.raises(OSError, match="Input/output error") as error:
            for number in range(num_films):
                assert films.keep(named_film(tmp_path, number), picture) == number
            assert num_films == 2
            films.end()
            films.completed()
        assert error.value.filename == str(tmp_path) and not films.completed()


def named_film(root: Path, number: int) -> Film:
    known = FilmLabels(
        file=f"{number}.png",
        table="",
        line=None,
        patient_id=str(number),
        findings=("No Finding",),
        age=None,
        sex=None,
        view=None,
    )
    return Film(path=root / known.file, labels=known, image_id=str(number), split="train")


def test_a_collection_that_is_refused_or_dropped_leaves_no_file_open(tmp_path: Path) -> None:
    options, before = replace(folder(tmp_path / "raw"), scratch=tmp_path), num_open()
    with pytest.raises(CollectionError, match="`conditions` must occur") as error:  # whose frames know the reader
        FolderSource.create(replace(options, conditions=("Fracture",)))
    assert num_open() == before, error
    source = FolderSource.create(options)
    assert num_open() == before + len(SPLITS)
    del source
    until(lambda: num_open() == before)


@pytest.mark.slow
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=300), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_hundredths_are_numpys_percentiles(levels: list[int], dtype: type) -> None:
    pixels = np.array(levels).astype(dtype)
    np.testing.assert_allclose(_hundredths(pixels), np.percentile(pixels.astype(float), (1, 99)))
