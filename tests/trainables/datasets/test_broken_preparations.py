"""A preparation that is broken off goes on where it was, to the same bytes, whatever broke it."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import warm_python
from film_folders import save_film
from stand_ins import folder

from sweep.prepare import add_sheet_and_card
from trainables.datasets.base import ImageTextSample, SourceOptions
from trainables.datasets.files import partial_of
from trainables.datasets.folder import FolderSource
from trainables.datasets.writing import write_dataset

pytestmark = pytest.mark.slow

BATCH = 20
FEWEST_REPORTS = 10
"""As many batches as there are: an attempt reports each, and while it makes one every seven films."""


class BrokenOffError(BaseException):
    """Something that nobody catches."""


class CountingSource(FolderSource):
    """It knows how many films it has read."""

    num_read = 0

    def samples_after(self, split: str, number: int) -> Iterator[ImageTextSample]:
        for sample in super().samples_after(split, number):
            self.num_read += 1
            yield sample


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.datasets.tensors.BATCH_BYTES", BATCH * 64**2)
    monkeypatch.setattr("trainables.datasets.writing.PROGRESS_EVERY", 7)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> SourceOptions:
    return folder(tmp_path_factory.mktemp("raw"))


def files_in(prepared: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prepared.iterdir())}


def breaking(at: int) -> Callable[[int], None]:
    """Breaks off at a report of progress."""
    reports = iter(range(1, at + 1))

    def report(_: int) -> None:
        if next(reports, at) == at:
            raise BrokenOffError

    return report


def broken_off(source: FolderSource, to: Path, at: int) -> Path:
    """What is left of an attempt that ends at a report of progress."""
    with pytest.raises(BrokenOffError):
        write_dataset(source, to, on_progress=breaking(at))
    assert not to.exists()
    return partial_of(to)


@pytest.fixture(scope="module")
def whole(raw: SourceOptions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one preparation without a break writes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainables.datasets.tensors.BATCH_BYTES", BATCH * 64**2)
        to = tmp_path_factory.mktemp("whole") / "prepared"
        return files_in(write_dataset(FolderSource.create(raw), to, finish=add_sheet_and_card).folder)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_written_is_not_made_again_and_the_bytes_are_the_same(
    raw: SourceOptions, whole: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    source, chance, to, breaks = CountingSource.create(raw), random.Random(seed), tmp_path / "prepared", 0
    for _ in range(3):
        broken_off(source, to, chance.randint(1, FEWEST_REPORTS))
        breaks += 1
    prepared = write_dataset(source, to, finish=add_sheet_and_card)
    assert files_in(prepared.folder) == whole and list(tmp_path.iterdir()) == [to]
    waiting = 2 * BATCH + 8  # films of a batch that was not whole, and those that threads had read ahead
    assert 150 <= source.num_read <= 150 + breaks * waiting


@pytest.mark.parametrize(
    ("moments", "first", "second"),
    [
        ("no", (1, 12), (8, 25)),
        ("wait", (1, 150), (151, 152)),
        ("names", (3, 3), (5, 5)),
        ("names", (4, 4), (6, 6)),
    ],
)
def test_killed_at_random_and_started_again_it_is_the_same(
    raw: SourceOptions,
    whole: dict[str, bytes],
    tmp_path: Path,
    moments: str,
    first: tuple[int, int],
    second: tuple[int, int],
) -> None:
    chance, to = random.Random(7), tmp_path / "prepared"
    script = Path(__file__).with_name("prepare_and_die.py")

    def attempt(dies_at: int) -> int:
        command = [*warm_python.command(), str(script), str(raw.root), str(to), str(dies_at), moments]
        return subprocess.run(command, check=False, timeout=300).returncode

    for dies_at in (chance.randint(*first), chance.randint(*second)):
        assert attempt(dies_at) == -signal.SIGKILL and not to.exists()
    assert attempt(10**6) == 0
    assert files_in(to) == whole and list(tmp_path.iterdir()) == [to]


def test_where_no_file_can_be_named_what_was_kept_is_gone_on_with(
    raw: SourceOptions, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*arguments: object, **options: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    broken_off(FolderSource.create(raw), to := tmp_path / "prepared", 20)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr("trainables.datasets.writing.clear", lambda folder: pytest.fail("what was kept is gone"))
    source = FolderSource.create(replace(raw, scratch=tmp_path))
    assert files_in(write_dataset(source, to, finish=add_sheet_and_card).folder) == whole


def flipped(name: str, place: float) -> Callable[[Path], None]:
    """A file of the partial folder with another byte, so far in."""

    def damage(partial: Path) -> None:
        content = bytearray((partial / name).read_bytes())
        content[int(place * len(content))] ^= 0xFF
        (partial / name).write_bytes(content)

    return damage


def truncated(name: str) -> Callable[[Path], None]:
    return lambda partial: (partial / name).write_bytes((partial / name).read_bytes()[:9000])  # type: ignore[return-value]


DAMAGES: list[Callable[[Path], object]] = [
    *(flipped("train.arrow", place) for place in (0.0, 0.001, 0.02, 0.3, 0.6)),
    truncated("train.arrow"),
    lambda partial: (partial / "train.arrow").unlink(),
    lambda partial: (partial / "progress.jsonl").unlink(),
    lambda partial: (partial / "progress.jsonl").write_bytes(b"{not json"),
    lambda partial: (partial / "progress.jsonl").open("ab").write(b'{"split": "train", "finger'),
    lambda partial: (partial / ".test.half").write_bytes(b"of a process that died as it named a file"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_remains_that_are_damaged_are_never_taken_for_films(
    raw: SourceOptions, whole: dict[str, bytes], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """As a machine that lost its power leaves them."""
    source, to = FolderSource.create(raw), tmp_path / "prepared"
    damage(broken_off(source, to, 20))
    assert files_in(write_dataset(source, to, finish=add_sheet_and_card).folder) == whole


def test_films_that_have_changed_meanwhile_are_prepared_anew(tmp_path: Path) -> None:
    options = folder(tmp_path / "raw")
    broken_off(FolderSource.create(options), tmp_path / "prepared", 25)
    save_film(tmp_path / "raw" / "films" / "4.png", 999)
    source = FolderSource.create(options)
    anew = write_dataset(source, tmp_path / "anew").folder
    assert files_in(write_dataset(source, tmp_path / "prepared").folder) == files_in(anew)
    assert not partial_of(tmp_path / "prepared").exists()


def test_another_source_does_not_go_on_with_its_films(raw: SourceOptions, tmp_path: Path) -> None:
    broken_off(FolderSource.create(raw), tmp_path / "prepared", 25)
    other = FolderSource.create(replace(raw, seed=5))
    ours = write_dataset(other, tmp_path / "prepared").folder
    assert files_in(ours) == files_in(write_dataset(other, tmp_path / "anew").folder)


def test_two_preparations_do_not_make_one_folder(raw: SourceOptions, whole: dict[str, bytes], tmp_path: Path) -> None:
    source, to = FolderSource.create(raw), tmp_path / "prepared"
    refused: list[str] = []

    def second(_: int) -> None:
        if not refused:
            with pytest.raises(
                OSError, match=r"`to` must be made by one process at a time, but got .*prepared"
            ) as error:
                write_dataset(source, to)
            refused.append(str(error.value))

    write_dataset(source, to, on_progress=second, finish=add_sheet_and_card)
    assert refused and files_in(to) == whole
    with pytest.raises(FileExistsError, match="`to` must be a new or empty folder"):
        write_dataset(source, to)
    assert list(tmp_path.iterdir()) == [to]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["train.arrow", "validation.arrow", "test.arrow.sums", "data_card.md"])
def test_a_full_disk_is_named_with_what_helps_and_costs_no_film(
    raw: SourceOptions, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, to, real_open = CountingSource.create(raw), tmp_path / "prepared", Path.open

    def full(path: Path, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
        return real_open(Path("/dev/full") if path.name == name else path, *arguments, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/\.prepared\.partial'") as error:
            write_dataset(source, to, finish=add_sheet_and_card)
    assert "the same command goes on" in " ".join(error.value.__notes__) and not to.exists()
    first, source.num_read = source.num_read, 0
    assert files_in(write_dataset(source, to, finish=add_sheet_and_card).folder) == whole
    assert first + source.num_read <= 150 + (2 * BATCH + 8 if name == "train.arrow" else BATCH)
