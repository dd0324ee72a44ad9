"""The file of low-rank layers that `StableDiffusionPipeline.load_lora_weights(folder)` reads.

Some ways of reading it leave out its metadata, and conversions lose what differs between layers. So its tensors are
the whole adapter: the scale is in B, alpha is the rank, and all layers of a component have one rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.strategies.low_rank import LowRankLayer, low_rank_layers

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
LORA_METADATA_KEY = "lora_adapter_metadata"
LORA_COMPONENTS = ("unet", "text_encoder")
"""What `load_lora_weights` adapts."""
RANK_AXES = {"lora_A.weight": 0, "lora_B.weight": 1}
"""Which axis of a tensor counts ranks."""


def low_rank_paths(models: DiffusionModels) -> list[str]:
    """Beginnings of the names of the tensors that the file can hold, such as `unet.mid_block...to_q.`."""
    return [f"{component}.{path}." for component, layers in _layers(models).items() for path in layers]


def write_low_rank(models: DiffusionModels, folder: Path) -> None:
    """Write the file, or nothing where the models have no low-rank layers.

    Args:
        models: The base with the adapter attached, not merged.
        folder: Where to write; it exists.
    """
    layers = _layers(models)
    if layers:
        _write(layers, folder / LORA_WEIGHTS)


def _layers(models: DiffusionModels) -> dict[str, dict[str, LowRankLayer]]:
    """Low-rank layers by component and path; components without one are left out."""
    return {name: found for name in LORA_COMPONENTS if (found := dict(low_rank_layers(models.component(name))))}


def _write(layers: Mapping[str, dict[str, LowRankLayer]], file: Path) -> None:
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for name, found in layers.items():
        active = {path: layer for path, layer in found.items() if len(layer.factors()[0])}
        if not active:  # an adaptive strategy may spend all its ranks on the other component
            continue
        rank = max(len(layer.factors()[0]) for layer in active.values())
        tensors |= dict(_tensors(name, active, rank))
        metadata |= {f"{name}.{key}": value for key, value in _peft_config(active, rank).items()}
    save_file(tensors, file, metadata={"format": "pt", LORA_METADATA_KEY: json.dumps(metadata)})


def _tensors(component: str, layers: dict[str, LowRankLayer], rank: int) -> Iterator[tuple[str, Tensor]]:
    """A component's tensors, which say all by themselves: readers take alpha for the rank, and the rank for one."""
    for path, layer in layers.items():
        for name, tensor in layer.peft_tensors().items():
            # transformers' reader puts the adapter's name behind the part, and looks for the magnitude's weight there
            ending = ".weight" if name == "lora_magnitude_vector" and component == "text_encoder" else ""
            scaled = tensor * layer.scale if name == "lora_B.weight" else tensor
            yield f"{component}.{path}.{name}{ending}", _padded(scaled, name, rank).detach().cpu().contiguous()


def _padded(tensor: Tensor, name: str, rank: int) -> Tensor:
    """With zeros up to a rank, which change nothing."""
    axis = RANK_AXES.get(name)
    if axis is None:
        return tensor
    shape = [*tensor.shape[:axis], rank - tensor.shape[axis], *tensor.shape[axis + 1 :]]
    return torch.cat([tensor, tensor.new_zeros(shape)], axis)


def _peft_config(layers: dict[str, LowRankLayer], rank: int) -> dict[str, Any]:
    """What diffusers hands to PEFT's LoraConfig: what the tensors say as well."""
    return {
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(layers),
        "use_dora": any("lora_magnitude_vector" in layer.peft_tensors() for layer in layers.values()),
    }
