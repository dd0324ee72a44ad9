"""States of captions in the cache: shared by bases that make the same of them, and by no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.base_models.models import MINI_FOLDER, DiffusionModels, load_base
from trainables.datasets.store import PreparedDataset
from trainables.feeding import BatchFeeder


def reweighted(part: str) -> Callable[[Path], None]:
    """Another base: so are the weights of a part."""

    def change(folder: Path) -> None:
        (file,) = (folder / part).glob("*.safetensors")
        save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})

    return change


def with_other_heads(folder: Path) -> None:
    """The same weights compute otherwise."""
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))


def with_other_tokens(folder: Path) -> None:
    """Two words of the captions have changed their tokens."""
    content = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    words["chest</w>"], words["of</w>"] = words["of</w>"], words["chest</w>"]
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(content))


def renamed(folder: Path) -> None:
    """Saved by another version, under another name."""
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    other = {"transformers_version": "5.0.0", "_name_or_path": "elsewhere"}
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config | other))


def fed(base: str, dataset: PreparedDataset, cache: Path) -> tuple[BatchFeeder, list[str]]:
    """A feeder of a trial that encodes films at every step, and the parts whose outputs it did not find in the cache."""
    loaded: list[str] = []

    def load(part: str) -> DiffusionModels:
        loaded.append(part)
        return load_base(base, (part,))

    feeder = BatchFeeder(
        models=load_base(base, ("unet",)),
        data=dataset.split("train"),
        data_key="phantom-train",
        trained=("unet", "vae"),
        cache_folder=cache,
        caption_dropout=0.0,
        load=load,
    )
    return feeder, loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "computed"),
    [
        (reweighted("unet"), []),
        (renamed, []),
        (reweighted("text_encoder"), ["text_encoder"]),
        (with_other_heads, ["text_encoder"]),
        (with_other_tokens, ["text_encoder"]),
    ],
)
def test_another_base_takes_from_the_cache_what_it_would_compute_alike(
    dataset: PreparedDataset, tmp_path: Path, change: Callable[[Path], None], computed: list[str]
) -> None:
    folder = shutil.copytree(MINI_FOLDER, tmp_path / "base")
    change(folder)
    first, of_first = fed("mini", dataset, tmp_path / "cache")
    other, of_other = fed(str(folder), dataset, tmp_path / "cache")
    assert (of_first, of_other) == (["text_encoder"], computed)
    alone, _ = fed(str(folder), dataset, tmp_path / "alone")
    states = [torch.from_numpy(feeder._states[:]) for feeder in (first, other, alone)]  # type: ignore[index]
    assert torch.equal(states[1], states[2])
    assert torch.equal(states[0], states[1]) == ("text_encoder" not in computed)
