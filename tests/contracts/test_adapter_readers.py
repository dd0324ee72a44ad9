"""One exported adapter, all ways in which diffusers and PEFT document that it is loaded: one result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from trainables.base_models.models import DiffusionModels, load_base
from trainables.exports import EXPORTS
from trainables.sampling import pipeline_of
from trainables.strategies import Strategy, make_strategy
from trainables.strategies.adalora import AdaLoRALayer
from trainables.strategies.base import trained_parameters
from trainables.strategies.low_rank import low_rank_layers

FILE = "pytorch_lora_weights.safetensors"
EVERYWHERE = {"targets": "linear+conv", "components": "unet+text_encoder"}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": 4, "alpha": 16.0, "components": "unet+text_encoder"}),
    "rslora": ("lora", {"rank": 8, "alpha": 6.0, "rslora": True}),
    "ranks by layer, convolutions": ("adalora", {"rank": 2, "alpha": 40.0, **EVERYWHERE}),
    "dora, convolutions": ("dora", {"rank": 4, "alpha": 10.0, **EVERYWHERE}),
}


@dataclass(frozen=True)
class Exported:
    """An adapter's folder, and what the adapted models answer."""

    folder: Path
    answer: Tensor

    @property
    def file(self) -> Path:
        return self.folder / FILE


@pytest.fixture(scope="module")
def mini() -> DiffusionModels:
    return load_base("mini")


@pytest.fixture(scope="module")
def export(mini: DiffusionModels, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Trains and exports an adapter of the table, once."""

    @cache
    def exported(adapter: str) -> Exported:
        name, hyperparameters = ADAPTERS[adapter]
        models, strategy = mini.fresh(), make_strategy(name, hyperparameters)
        torch.manual_seed(0)
        strategy.attach(models)
        train(models, strategy)
        folder = tmp_path_factory.mktemp("exported")
        EXPORTS["diffusers"].write(models, strategy, folder)
        return Exported(folder, answer(models))

    return exported


@torch.no_grad()
def train(models: DiffusionModels, strategy: Strategy) -> None:
    """Move what is trained away from where it starts; each layer of AdaLoRA keeps another number of triplets, some none."""
    for _, parameter in trained_parameters(models):
        parameter.add_(0.05 * torch.randn_like(parameter))
    layers = [layer for name in strategy.trains for _, layer in low_rank_layers(models.component(name))]
    for number, layer in enumerate(layers):
        if isinstance(layer, AdaLoRALayer):
            layer.keep(list(range(number % (layer.rank + 1))))


@torch.no_grad()
def answer(models: Any) -> Tensor:
    """What the U-Net makes of noise and of the states of a prompt: every adapted layer has its part in it."""
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))[:, : models.unet.config.in_channels]
    states = models.text_encoder(torch.arange(20).view(2, 10))[0]
    result: Tensor = models.unet(noise, torch.tensor([300, 700]), encoder_hidden_states=states).sample
    return result


def by_folder(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    pipeline.load_lora_weights(str(exported.folder))


def by_file(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    pipeline.load_lora_weights(str(exported.folder), weight_name=FILE)


def by_state_dict(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    pipeline.load_lora_weights(load_file(exported.file))


def by_component(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    tensors = load_file(exported.file)
    pipeline.unet.load_lora_adapter(tensors, prefix="unet")
    pipeline.load_lora_into_text_encoder(tensors, network_alphas=None, text_encoder=pipeline.text_encoder)


def by_adapter_weights(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    pipeline.load_lora_weights(load_file(exported.file), adapter_name="films")
    pipeline.set_adapters(["films"], adapter_weights=[1.0])


def in_two_halves(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    """Twice at half its weight; what DoRA adds is not linear in its weight."""
    for name in ("one", "other"):
        pipeline.load_lora_weights(str(exported.folder), adapter_name=name)
    pipeline.set_adapters(["one", "other"], adapter_weights=[0.5, 0.5])


def fused(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    pipeline.load_lora_weights(load_file(exported.file))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def saved_anew(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    """Saved by diffusers itself after it was loaded, and loaded from there."""
    pipeline.load_lora_weights(load_file(exported.file), adapter_name="films")
    parts = {name: getattr(pipeline, name) for name in ("unet", "text_encoder")}
    layers = {
        f"{name}_lora_layers": get_peft_model_state_dict(part, adapter_name="films")
        for name, part in parts.items()
        if "films" in getattr(part, "peft_config", {})
    }
    pipeline.save_lora_weights(exported.folder / "saved", **layers)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(exported.folder / "saved")


def by_kohya(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    """Out of diffusers into kohya's names, and back through the reader of these."""
    pipeline.load_lora_weights(convert_state_dict_to_kohya(load_file(exported.file)))


def by_peft(pipeline: StableDiffusionPipeline, exported: Exported) -> None:
    """PEFT's own functions, with nothing told but which layers and how many ranks, as the tensors' shapes say."""
    tensors = load_file(exported.file)
    for name in ("unet", "text_encoder"):
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if own:
            rank = {len(value) for key, value in own.items() if key.endswith("lora_A.weight")}
            config = LoraConfig(
                r=max(rank),
                lora_alpha=max(rank),
                target_modules=sorted({key.partition(".lora_")[0] for key in own}),
                use_dora=any("magnitude" in key for key in own),
            )
            set_peft_model_state_dict(inject_adapter_in_model(config, getattr(pipeline, name)), own)


READERS: dict[str, Callable[[StableDiffusionPipeline, Exported], None]] = {
    reader.__name__: reader
    for reader in (
        by_folder, by_file, by_state_dict, by_component, by_adapter_weights, in_two_halves, fused, saved_anew, by_kohya,
        by_peft,
    )
}  # fmt: skip
CASES = [
    *(("lora", reader) for reader in READERS),
    *(("rslora", reader) for reader in ("by_state_dict", "by_kohya")),
    *(("ranks by layer, convolutions", reader) for reader in ("by_folder", "by_state_dict", "by_kohya")),
    *(("dora, convolutions", reader) for reader in ("by_state_dict", "by_peft")),
]
"""All ways for one adapter; for the others those that lead through code of their own. README has the whole table."""


@pytest.mark.parametrize(("adapter", "reader"), CASES)
def test_every_reader_gives_the_adapted_model(
    adapter: str, reader: str, export: Callable[[str], Exported], mini: DiffusionModels
) -> None:
    exported, pipeline = export(adapter), pipeline_of(mini.fresh())
    READERS[reader](pipeline, exported)
    came, plain = answer(pipeline), answer(mini)
    moved = (exported.answer - plain).abs().max()
    assert moved > 0.05
    assert (came - exported.answer).abs().max() < 1e-4 * moved


def test_all_layers_of_a_component_have_one_rank_which_is_alpha(export: Callable[[str], Exported]) -> None:
    """And the layers that an adaptive strategy emptied are not there."""
    file = export("ranks by layer, convolutions").file
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["lora_adapter_metadata"])
    tensors = load_file(file)
    for name in ("unet", "text_encoder"):
        ranks = {len(value) for key, value in tensors.items() if key.startswith(name) and key.endswith("lora_A.weight")}
        assert ranks == {said[f"{name}.r"]} == {said[f"{name}.lora_alpha"]} == {3}
    assert all(tensor.any() for key, tensor in tensors.items() if "lora_A" in key)
