"""Bases in other layouts: variants, pickles and single files give the weights that the plain folder gives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from single_file import write_single_file

from trainables.base_models.models import (
    COMPONENTS,
    MINI_FOLDER,
    DiffusionModels,
    load_base,
    resolve_base,
    weights_hash,
)
from trainables.base_models.sd15 import write_sd15_layout

PART_FILES = {
    "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model",
}  # fmt: skip


@pytest.fixture(autouse=True)
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's files would lie; nothing is there, and nothing is fetched."""
    home = tmp_path / "huggingface"
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return home


@pytest.fixture(scope="session")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the blocks of Stable Diffusion 1.5, and thinner."""
    folder = tmp_path_factory.mktemp("thin") / "thin"
    write_sd15_layout(folder, latent_side=8)
    return folder


@pytest.fixture(scope="session")
def whole(thin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a single file."""
    file = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    write_single_file(thin, file)
    return file


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    return shutil.copytree(MINI_FOLDER, tmp_path / "mini")


def weights_of(models: DiffusionModels) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor for name in COMPONENTS for key, tensor in models.component(name).state_dict().items()
    }


@cache
def due_weights(folder: Path) -> Mapping[str, torch.Tensor]:
    """Those of a folder that no test changes."""
    return weights_of(load_base(str(folder)))


def loaded_alike(base: Path, due: Path) -> DiffusionModels:
    """A base that is loaded and must have the weights of a folder."""
    models = load_base(str(base))
    ours, theirs = weights_of(models), due_weights(due)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    return models


def as_variant(folder: Path, part: str) -> None:
    file = folder / part / f"{PART_FILES[part]}.safetensors"
    file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))


def as_sharded_variant(folder: Path, part: str) -> None:
    file = folder / part / f"{PART_FILES[part]}.safetensors"
    tensors = load_file(file)
    names, weight_map = sorted(tensors), {}
    for number, chosen in ((1, names[::2]), (2, names[1::2])):
        shard = f"{file.stem}.fp16-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, file.with_name(shard), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, shard)
    file.with_name(f"{file.name}.index.fp16.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    file.unlink()


def as_pickle(folder: Path, part: str) -> None:
    file = folder / part / f"{PART_FILES[part]}.safetensors"
    name = "pytorch_model.bin" if part == "text_encoder" else f"{file.stem}.bin"
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("parts", [COMPONENTS, ("text_encoder",)])
@pytest.mark.parametrize("change", [as_variant, as_sharded_variant, as_pickle])
def test_weights_that_are_there_in_another_form_alone_are_read(
    mini: Path, change: Callable[[Path, str], None], parts: tuple[str, ...], hub_home: Path
) -> None:
    for part in parts:
        change(mini, part)
    models = loaded_alike(mini, MINI_FOLDER)
    (made,) = (hub_home / "radiograph-sweep").iterdir()
    assert resolve_base(str(mini)) == made
    assert models.base.weights_hash == weights_hash(made)


@pytest.mark.slow
def test_a_folder_that_changes_is_made_anew(mini: Path) -> None:
    as_pickle(mini, "vae")
    before = resolve_base(str(mini))
    tensors = torch.load(mini / "vae" / "diffusion_pytorch_model.bin", weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, mini / "vae" / "diffusion_pytorch_model.bin")
    after = resolve_base(str(mini))
    assert before != after
    assert weights_hash(before) != weights_hash(after)


class Code:
    """What runs when it is read by a careless pickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [{"conv_in.weight": Code()}, ["a list"], {"epoch": 3}])
def test_a_pickle_that_holds_more_than_tensors_is_refused_and_not_run(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, hub_home: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    as_pickle(mini, "unet")
    torch.save(content, mini / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"`diffusion_pytorch_model.bin` of a base must hold tensors alone, but got"):
        resolve_base(str(mini))
    assert not (tmp_path / "ran").exists()
    assert list((hub_home / "radiograph-sweep").iterdir()) == []


@pytest.mark.slow
def test_a_single_file_gives_the_weights_of_its_folder(thin: Path, whole: Path, tmp_path: Path) -> None:
    """Its configurations are found in a folder of its name, and in the folder that it lies in."""
    beside, within = tmp_path / "beside" / "model.safetensors", tmp_path / "within" / "any_name.safetensors"
    without_weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(thin, tmp_path / "beside" / "model", ignore=without_weights)
    shutil.copytree(thin, tmp_path / "within", ignore=without_weights)
    for file in (beside, within):
        file.hardlink_to(whole)
    models = loaded_alike(beside, thin)
    assert weights_hash(resolve_base(str(within))) == models.base.weights_hash
    assert models.base.source == "model.safetensors"


@pytest.mark.slow
def test_configurations_beside_a_single_file_act_when_they_change(thin: Path, whole: Path, tmp_path: Path) -> None:
    """The folder that is made of the file is made anew then, and not otherwise."""
    file, scheduler = tmp_path / "model.safetensors", tmp_path / "model" / "scheduler" / "scheduler_config.json"
    file.hardlink_to(whole)
    shutil.copytree(thin, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    before = resolve_base(str(file))
    assert resolve_base(str(file)) == before
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    after = resolve_base(str(file))
    made = json.loads((after / "scheduler" / "scheduler_config.json").read_text())
    assert after != before and made["prediction_type"] == "v_prediction"


def test_a_single_file_without_configurations_says_where_to_put_them(whole: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"must have configurations and a tokenizer, but got none .*as whole/\."
    ):
        resolve_base(str(whole))


@pytest.mark.slow
def test_a_single_file_takes_the_configurations_that_the_hub_left_here(thin: Path, whole: Path, hub_home: Path) -> None:
    stored = hub_home / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    shutil.copytree(thin, stored / "snapshots" / "abc", ignore=shutil.ignore_patterns("*.safetensors"))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("abc")
    loaded_alike(whole, thin)


def inpainting(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    return tensors | {name: torch.zeros(tensors[name].shape[0], 9, 3, 3)}


def without(prefix: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (inpainting, "but got what diffusers takes for 'inpainting'"),
        (lambda t: t | {"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": torch.zeros(1)}, "'xl_base'"),
        (without("first_stage_model."), "but got no vae in"),
        (without("model."), "but got no unet in"),
        (lambda t: {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(1)}, "whose first tensor is lora_unet_down_blocks_0"),
        (lambda t: {}, "whose first tensor is none"),
    ],
)  # fmt: skip
def test_a_single_file_of_another_model_is_refused_by_what_it_is(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], said: str
) -> None:
    save_file(change(load_file(whole)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="`base` must be a whole text-to-image model") as refused:
        resolve_base(str(tmp_path / "other.safetensors"))
    assert said in str(refused.value)


@pytest.mark.slow
def test_a_single_file_that_lacks_tensors_is_refused(thin: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(thin, tmp_path / "cut", ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(without("model.diffusion_model.middle_block.2")(load_file(whole)), tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="`base` must be a file that fits the configurations beside it"):
        resolve_base(str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "notes.txt"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"`base` must be a folder or a \*.safetensors file, but got .*" + name):
        resolve_base(str(tmp_path / name))


def test_a_home_that_cannot_be_written_is_named(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", "/sys/huggingface")
    as_variant(mini, "unet")
    with pytest.raises(OSError, match=r"`HF_HOME` must be a folder that can be written, .* but got '/sys/huggingface'"):
        resolve_base(str(mini))
