"""Prepared data sets and the tensor cache: complete or absent, shared, bit for bit."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from trainables.datasets.base import SPLITS, ImageTextSample, ImageTextSource, SourceOptions
from trainables.datasets.captions import FREE_TEXT, PromptTemplate, paper_template
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.tensors import TensorCache
from trainables.datasets.writing import write_dataset


class TinySource(ImageTextSource):
    """Six made-up films, of which each split gets two; a subclass or a caller may spoil them."""

    name: ClassVar[str] = "tiny"
    prompts: PromptTemplate = FREE_TEXT

    def __init__(self, **spoilt: Any) -> None:
        self.conditions = ("Edema", "No Finding")
        self.resolution_px = 64
        self.spoilt = spoilt

    @classmethod
    def create(cls, options: SourceOptions) -> Self:
        return cls()

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        for number in range(2):
            yield self._sample(split, number)

    def _sample(self, split: str, number: int) -> ImageTextSample:
        content: dict[str, Any] = {
            "image": np.full((64, 64), 10 * SPLITS.index(split) + number, np.uint8),
            "prompt": f"{split} {number}",
            "conditions": (self.conditions[number],),
            "patient_id": f"{split}-{number}",
            "image_id": f"{split}-{number}",
            "age": None if number else 40,
            "sex": "F",
            "view": None,
        }
        if split == "test" and number == 1:
            content |= self.spoilt
        return ImageTextSample(**content)

    def num_samples(self, split: str) -> int:
        return 2

    def fingerprint(self) -> str:
        return "ab"


class TemplatedSource(TinySource):
    """Its captions are said to follow the paper's template, and do not."""

    prompts = PromptTemplate()


class FailingSource(TinySource):
    """A disk that is full, or a file that is broken, at the last film."""

    def _sample(self, split: str, number: int) -> ImageTextSample:
        if split == "test" and number == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super()._sample(split, number)


@pytest.mark.slow
def test_what_is_written_is_read(tmp_path: Path) -> None:
    source = PhantomSource(num_patients=18, seed=3)
    seen: list[int] = []
    prepared = write_dataset(source, tmp_path / "prepared", on_progress=seen.append)
    total = sum(source.num_samples(split) for split in SPLITS)
    assert seen[-1] == total and seen == sorted(seen)
    assert (prepared.name, prepared.source_fingerprint) == ("phantom", source.fingerprint())
    for name in SPLITS:
        split, samples = prepared.split(name), list(source.samples(name))
        assert len(split) == len(samples) == prepared.num_samples[name]
        np.testing.assert_array_equal(split.images(range(len(split))), np.stack([s.image for s in samples]))
        assert split.prompts == [s.prompt for s in samples]
        assert split.conditions == [s.conditions for s in samples]
        assert split.patient_ids == [s.patient_id for s in samples]
        assert (split.ages, split.sexes) == ([s.age for s in samples], [s.sex for s in samples])
        edema = split.indices_with("Edema")
        assert edema.tolist() == [i for i, s in enumerate(samples) if "Edema" in s.conditions]


def test_the_summary_counts_images_patients_and_findings(tmp_path: Path) -> None:
    prepared = write_dataset(TinySource(), tmp_path / "tiny")
    assert prepared.summary()["test"] == {"images": 2, "patients": 2, "Edema": 1, "No Finding": 1}


def test_images_of_several_batches_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.datasets.tensors.BATCH_BYTES", 64 * 64)
    split = write_dataset(TinySource(), tmp_path / "tiny").split("test")
    assert [int(split.image(i)[0, 0]) for i in range(2)] == [20, 21]
    assert split.images([1, 0, 1])[:, 3, 3].tolist() == [21, 20, 21]


def test_images_are_mapped_not_copied(tmp_path: Path) -> None:
    split = write_dataset(TinySource(), tmp_path / "tiny").split("train")
    image = split.image(1)
    assert not image.flags.owndata and not image.flags.writeable
    assert len(pickle.dumps(split)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).image(1), image)
    with pytest.raises(IndexError, match=r"`index` must be in \[0, 2\), but got -1"):
        split.image(-1)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = write_dataset(TinySource(), tmp_path / "a").fingerprint
    assert write_dataset(TinySource(), tmp_path / "b").fingerprint == first
    for number, change in enumerate([{"prompt": "x"}, {"age": 3}, {"image": np.zeros((64, 64), np.uint8)}]):
        assert write_dataset(TinySource(**change), tmp_path / str(number)).fingerprint != first


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"image_id": "test-0"}, "`image_id` must be unique, but got 'test-0' twice"),
        ({"patient_id": "train-0"}, "`patient_id` must be in one split, but got 'train-0' in train and in test"),
        ({"image": np.zeros((72, 72), np.uint8)}, "`image` must be 64 x 64 px"),
        ({"conditions": ("Edema",)}, "`test` must hold images of every condition, but got no image with No Finding"),
        ({"image": np.zeros((64, 60), np.uint8)}, "`image` must be a square"),
        ({"conditions": ()}, "`conditions` must name at least one finding"),
    ],
)
def test_bad_samples_leave_nothing_behind(tmp_path: Path, spoilt: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(TinySource(**spoilt), tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_data_set_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        write_dataset(FailingSource(), tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_a_filled_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="`to` must be a new or empty folder"):
        write_dataset(TinySource(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("with_view", [False, True])
def test_the_template_of_the_captions_is_kept(tmp_path: Path, with_view: bool) -> None:
    source = PhantomSource(num_patients=18, seed=3, with_view=with_view)
    written = write_dataset(source, tmp_path / "prepared")
    prompts = PreparedDataset.open(written.folder).prompts
    assert prompts == paper_template(with_view=with_view) and prompts != paper_template(with_view=not with_view)
    train = written.split("train")
    made = [prompts.prompt(c, view=v) for c, v in zip(train.conditions, train.views, strict=True)]
    assert made == train.prompts


def test_captions_that_do_not_follow_their_template_are_refused(tmp_path: Path) -> None:
    rule = "`prompt` must be made by the source's template, 'Chest X-ray of a subject with edema', but got 'train 0'"
    with pytest.raises(ValueError, match=rule):
        write_dataset(TemplatedSource(), tmp_path / "tiny")


def test_a_data_set_of_an_older_format_is_to_be_prepared_again(tmp_path: Path) -> None:
    card = write_dataset(TinySource(), tmp_path / "tiny").folder / "dataset.json"
    card.write_text(card.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(ValueError, match=r"`format` of a prepared data set must be 3, but got 2 .* Prepare it again"):
        PreparedDataset.open(tmp_path / "tiny")


def test_opening_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`path` must be a prepared data set"):
        PreparedDataset.open(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    prepared = write_dataset(TinySource(), tmp_path / "tiny")
    (prepared.folder / "train.arrow").write_bytes(b"ARROW1 but no more")
    with pytest.raises(OSError, match=r"train\.arrow` must hold what was written to it, but got 18 bytes where"):
        prepared.split("train")
    (prepared.folder / "train.arrow.sums").unlink()
    with pytest.raises(ValueError, match=r"`train\.arrow` must be a complete Arrow file"):
        prepared.split("train")


TENSORS: dict[str, NDArray[Any]] = {
    "bytes": np.arange(7, dtype=np.uint8),
    "latents": np.random.default_rng(0).standard_normal((5, 4, 8, 8)).astype(np.float32),
    "half": np.arange(12, dtype=np.float16).reshape(3, 4),
    "scalar": np.array(3.5),
    "flags": np.array([[True], [False]]),
    "empty": np.zeros((0, 4), np.int64),
}


def test_tensors_keep_values_shapes_and_dtypes(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.get_or_create("k1", "latents", lambda: TENSORS)
    read = cache.get_or_create("k1", "latents", lambda: pytest.fail("computed twice"))
    assert list(read) == list(TENSORS)
    for name, tensor in TENSORS.items():
        whole = read[name].whole()
        np.testing.assert_array_equal(whole, tensor)
        assert (read[name].shape, read[name].dtype) == (whole.shape, whole.dtype) == (tensor.shape, tensor.dtype)
        assert whole.flags.aligned and not whole.flags.owndata


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_what_is_read_lies_in_the_file_and_not_in_memory(tmp_path: Path) -> None:
    large = TensorCache(tmp_path).get_or_create("k", "x", lambda: {"v": np.ones(1_000_000)})["v"].whole()
    address, maps = large.__array_interface__["data"][0], Path("/proc/self/maps").read_text().splitlines()
    spans = [(line.split()[0].split("-"), line) for line in maps]
    (mapping,) = [line for (low, high), line in spans if int(low, 16) <= address < int(high, 16)]
    assert mapping.endswith("x/k.arrow")


def test_tensors_that_are_strided_are_stored_as_they_look(tmp_path: Path) -> None:
    strided = np.arange(24).reshape(4, 6).T[::2]
    stored = TensorCache(tmp_path).get_or_create("k", "n", lambda: {"x": strided})["x"]
    np.testing.assert_array_equal(stored.whole(), strided)


def test_keys_and_names_are_kept_apart(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    for number, (key, name) in enumerate([("a", "x"), ("b", "x"), ("a", "y")]):
        assert cache.get_or_create(key, name, lambda n=number: {"v": np.array([n])})["v"][0] == number
    assert cache.get_or_create("b", "x", dict)["v"][0] == 1


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.get_or_create("a", "x", lambda: {"v": np.ones(3)})

    def full() -> dict[str, NDArray[Any]]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cache.get_or_create("b", "x", full)
    assert sorted(path.name for path in (tmp_path / "x").glob("*")) == ["a.arrow", "a.arrow.sums", "a.lock", "b.lock"]
    assert cache.get_or_create("b", "x", lambda: {"v": np.zeros(1)})["v"].whole().tolist() == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_write_that_fails_midway_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: real_open(Path("/dev/full"), *a, **k))
    with pytest.raises(OSError, match="No space left"):
        TensorCache(tmp_path).get_or_create("a", "x", lambda: {"v": np.ones(1_000_000)})
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "x").glob("*.arrow*")] == []
    assert [path.name for path in (tmp_path / "x").glob(".*partial")] == []


def test_odd_keys_are_refused(tmp_path: Path) -> None:
    for key in ("../a", "", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="`key` must be letters, digits"):
            TensorCache(tmp_path).get_or_create(key, "x", dict)


def _ask(folder: Path, computed: Path) -> float:
    def compute() -> dict[str, NDArray[Any]]:
        with computed.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return {"v": np.arange(100_000, dtype=np.float64)}

    return float(TensorCache(folder).get_or_create("k", "x", compute)["v"].whole().sum())


@pytest.mark.slow
def test_of_two_processes_one_computes(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_ask, [(tmp_path / "cache", tmp_path / "computed")] * 6, chunksize=1)
    assert set(sums) == {float(np.arange(100_000).sum())}
    assert len((tmp_path / "computed").read_text().splitlines()) == 1
