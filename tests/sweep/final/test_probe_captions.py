"""What the text probe reads: captions made as the data's are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from free_text_phantom import FreeTextPhantom, templated

from sweep.final.encoders import _probed_findings, probe_captions
from trainables.datasets.base import ImageTextSample
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("with_view", [False, True])
def test_captions_of_the_probe_are_made_as_those_that_were_trained_on(tmp_path: Path, with_view: bool) -> None:
    data = write_dataset(PhantomSource(num_patients=60, seed=2, with_view=with_view), tmp_path / "data")
    captions = probe_captions(data)
    assert len(captions) == 5 + 10 + 10
    assert len(captions.keys() & set(data.split("train").prompts)) >= 5, (
        "the very texts, where training films show such findings"
    )
    assert all(text.endswith(" view") == with_view for text in captions)


class SharingCaptions(FreeTextPhantom):
    """Of the test films two with the same findings share a caption, and two with different ones share another."""

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        films = list(super().samples(split))
        alike = next(pair for pair in combinations(films, 2) if pair[0].conditions == pair[1].conditions)
        rest = [film for film in films if film.image_id not in {sample.image_id for sample in alike}]
        unlike = next(pair for pair in combinations(rest, 2) if pair[0].conditions != pair[1].conditions)
        said = {film.image_id: "said of films alike" for film in alike}
        said |= {film.image_id: "said of films unlike" for film in unlike}
        for film in films:
            yield replace(film, prompt=said.get(film.image_id, film.prompt))


def test_free_text_is_taken_from_test_films(tmp_path: Path) -> None:
    captions = probe_captions(write_dataset(FreeTextPhantom(), tmp_path / "data"))
    assert captions == {f"{film.image_id}: see the lungs": film.conditions for film in templated("test")}


def test_free_text_that_films_of_different_findings_share_is_left_out(tmp_path: Path) -> None:
    data = write_dataset(SharingCaptions(), tmp_path / "data")
    captions, num_films = probe_captions(data), data.num_samples["test"]
    assert "said of films alike" in captions and "said of films unlike" not in captions
    assert len(captions) == num_films - 3, "two films with one caption, and two without"
    first = next(film for film in SharingCaptions().samples("test") if film.prompt == "said of films alike")
    assert captions[first.prompt] == first.conditions


class OneCaption(FreeTextPhantom):
    """Every film is said the same of."""

    def samples(self, split: str) -> Iterator[ImageTextSample]:
        return (replace(film, prompt="see the lungs") for film in super().samples(split))


def test_free_text_that_tells_no_films_apart_is_refused(tmp_path: Path) -> None:
    data = write_dataset(OneCaption(), tmp_path / "data")
    captions = probe_captions(data)
    assert captions == {}
    with pytest.raises(ValueError, match="`conditions` must have one that 2 captions name and 2 do not"):
        _probed_findings(data, list(captions.values()))
