"""What the text probe reads: captions made as the data's are."""

from __future__ import annotations

from pathlib import Path

import pytest
from free_text_phantom import FreeTextPhantom

from sweep.final.encoders import probe_captions
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset


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
    data = write_dataset(FreeTextPhantom(), tmp_path / "data")
    test = data.split("test")
    assert probe_captions(data) == dict(zip(test.prompts, test.conditions, strict=True))
    assert len(probe_captions(data)) == len(test)
