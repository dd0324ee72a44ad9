"""Base models without weights: whoever is given one has it alone, and of the files as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from trainables.base_models.models import COMPONENTS, MINI_FOLDER, DiffusionModels
from trainables.base_models.shapes import base_on_meta
from trainables.strategies import make_strategy


def names(models: DiffusionModels) -> dict[str, list[str]]:
    return {name: [*models.component(name).state_dict()] for name in COMPONENTS}


@pytest.mark.parametrize("base", ["mini", "sd15"])
def test_what_is_adapted_and_set_leaves_the_next_as_it_is(base: str) -> None:
    adapted, plain = base_on_meta(base), names(base_on_meta(base))
    side = adapted.resolution_px
    make_strategy("lora", {"components": "unet+text_encoder"}).attach(adapted.for_films_of(2 * side))
    assert names(adapted) != plain
    another = base_on_meta(base)
    assert names(another) == plain and another.resolution_px == side
    assert all(parameter.is_meta for name in COMPONENTS for parameter in another.component(name).parameters())


def test_a_configuration_that_changes_is_read_anew(tmp_path: Path) -> None:
    for part in COMPONENTS:
        (tmp_path / part).mkdir()
        shutil.copy(MINI_FOLDER / part / "config.json", tmp_path / part)
    before, file = base_on_meta(str(tmp_path)), tmp_path / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": 128}))
    assert (before.resolution_px, base_on_meta(str(tmp_path)).resolution_px) == (64, 512)
