"""Pictures that wait between the first look and the writing: the same ones, and none where there is no room."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import folder

from trainables.datasets.base import SPLITS, SourceOptions
from trainables.datasets.folder import FolderSource
from trainables.datasets.scan import _hundredths
from trainables.datasets.waiting import waiting_pictures


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


def test_where_there_is_no_room_films_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waiting_pictures(None, 1, 64) is None
    assert waiting_pictures(tmp_path, shutil.disk_usage(tmp_path).free // 64**2, 64) is None
    waiting = waiting_pictures(tmp_path, 3, 64)
    assert waiting is not None
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    places = [waiting.keep(picture) for picture in pictures]
    assert places == [0, 64**2] and np.array_equal(waiting.picture(64**2), pictures[1])

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert waiting.keep(pictures[0]) is None
    monkeypatch.undo()
    assert waiting.keep(pictures[0]) is None and np.array_equal(waiting.picture(0), pictures[0])


@pytest.mark.slow
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=300), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_hundredths_are_numpys_percentiles(levels: list[int], dtype: type) -> None:
    pixels = np.array(levels).astype(dtype)
    np.testing.assert_allclose(_hundredths(pixels), np.percentile(pixels.astype(float), (1, 99)))
