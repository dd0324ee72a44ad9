"""What the text probe reads: captions made as the data's are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.final.encoders import probe_captions
from trainables.datasets.base import ImageTextSample
from trainables.datasets.captions import FREE_TEXT
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset
from trainables.datasets.writing import write_dataset


class Reports(PhantomSource):
    """The phantom with free text for captions, another for each film."""

    def __init__(self) -> None:
        super().__init__(num_patients=60, seed=2)
        self.prompts = FREE_TEXT

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        for sample in PhantomSource(num_patients=60, seed=2).samples(split):
            text = f"{sample.image_id}: one sees {', '.join(sample.conditions)}"
            yield replace(sample, prompt=text)


@pytest.mark.parametrize("with_view", [False, True])
def test_captions_of_the_probe_are_made_as_those_that_were_trained_on(tmp_path: Path, with_view: bool) -> None:
    data = write_dataset(PhantomSource(num_patients=60, seed=2, with_view=with_view), tmp_path / "data")
    captions = probe_captions(data)
    assert len(captions) == 5 + 10 + 10
    assert len(captions.keys() & set(data.split("train").prompts)) >= 5, (
        "the very texts, where training films show such findings"
    )
    assert all(text.endswith(" view") == with_view for text in captions)


def test_free_text_is_taken_from_test_films(tmp_path: Path) -> None:
    data: PreparedDataset = write_dataset(Reports(), tmp_path / "data")
    test = data.split("test")
    assert probe_captions(data) == dict(zip(test.prompts, test.conditions, strict=True))
    assert len(probe_captions(data)) == len(test)
