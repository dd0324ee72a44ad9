"""Low-rank layers as other programs' files hold them.

Some ways of reading such files leave out their metadata, and conversions lose what differs between layers. So the
tensors are the whole adapter: the scale is in B, alpha is the rank, and all layers of a component have one rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.base_models.models import DiffusionModels
from trainables.strategies.low_rank import LowRankLayer, low_rank_layers

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
LORA_METADATA_KEY = "lora_adapter_metadata"
LORA_COMPONENTS = ("unet", "text_encoder")
"""Components that can have low-rank layers."""
MAGNITUDE = "lora_magnitude_vector"
RANK_AXES = {"lora_A.weight": 0, "lora_B.weight": 1}
"""Which axis of a tensor counts ranks."""


@dataclass(frozen=True, kw_only=True)
class LowRankPart:
    """The low-rank layers of one component.

    Attributes:
        rank: of all of them, which is alpha as well.
        tensors: by a layer's path in the component and PEFT's name, such as `lora_A.weight`; A is [rank, ...], B is
            [out, rank, ...].
    """

    rank: int
    tensors: Mapping[tuple[str, str], Tensor]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the layers."""
        return tuple(dict.fromkeys(path for path, _ in self.tensors))

    @property
    def has_magnitudes(self) -> bool:
        """Whether they are DoRA's."""
        return any(name == MAGNITUDE for _, name in self.tensors)

    def settings(self) -> dict[str, Any]:
        """What is handed to PEFT's LoraConfig: what the tensors say as well."""
        return {
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": sorted(self.paths),
            "use_dora": self.has_magnitudes,
        }


def low_rank_paths(models: DiffusionModels) -> list[str]:
    """Beginnings of the names of the tensors that such a file can hold, such as `unet.mid_block...to_q.`."""
    return [f"{component}.{path}." for component, layers in _layers(models).items() for path in layers]


def low_rank_parts(models: DiffusionModels) -> dict[str, LowRankPart]:
    """The low-rank layers by component, without components that have none and layers of rank 0.

    Args:
        models: the base with the adapter attached, not merged.
    """
    return {name: part for name, layers in _layers(models).items() if (part := _part(layers)) is not None}


def _layers(models: DiffusionModels) -> dict[str, dict[str, LowRankLayer]]:
    """Low-rank layers by component and path; components without one are left out."""
    return {name: layers for name in LORA_COMPONENTS if (layers := dict(low_rank_layers(models.component(name))))}


def _part(layers: Mapping[str, LowRankLayer]) -> LowRankPart | None:
    active = {path: layer for path, layer in layers.items() if len(layer.factors()[0])}
    if not active:  # an adaptive strategy may spend all its ranks on the other component
        return None
    rank = max(len(layer.factors()[0]) for layer in active.values())
    return LowRankPart(rank=rank, tensors=dict(_tensors(active, rank)))


def _tensors(layers: Mapping[str, LowRankLayer], rank: int) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Tensors that say all by themselves: readers take alpha for the rank, and the rank for one."""
    for path, layer in layers.items():
        for name, tensor in layer.peft_tensors().items():
            scaled = tensor * layer.scale if name == "lora_B.weight" else tensor
            yield (path, name), _padded(scaled, name, rank).detach()


def _padded(tensor: Tensor, name: str, rank: int) -> Tensor:
    """The tensors with zeros up to a rank, which change nothing."""
    axis = RANK_AXES.get(name)
    if axis is None:
        return tensor
    shape = [*tensor.shape[:axis], rank - tensor.shape[axis], *tensor.shape[axis + 1 :]]
    return torch.cat([tensor, tensor.new_zeros(shape)], axis)
