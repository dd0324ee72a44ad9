"""What a strategy costs before it has run: parameters, adapter, training memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from trainables.base_models.meta import Unfilled
from trainables.base_models.models import DiffusionModels
from trainables.strategies.base import Strategy, num_trainable_parameters

BYTES = 4
"""Bytes of a number. What trains, its gradients and its moments are float32 in any precision of training. Frozen
weights are counted so too, though in half precision they take half of it."""
LENGTH_FIELD = ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A strategy's size on one base model.

    Attributes:
        strategy: its name in the table.
        hyperparameters: with which it was counted, by name.
        trains: the parts of the base with trained parameters.
        summary: what trains, in words.
        trainable_parameters: at the start of training.
        adapter_bytes: size of the adapter's safetensors file before training.
        adapter_after_training: whether that is its size afterwards: `exact`, `at least` or `at most`.
        weight_bytes: of the U-Net and the parts that train, with what the strategy adds; frozen encoders are not loaded
            while their outputs are cached.
        gradient_bytes: of the trained parameters.
        moment_bytes: AdamW's two moments of the trained parameters.
        kept_bytes: what the strategy keeps of its own while it trains: AdaLoRA's importance, DyLoRA's copies.
    """

    strategy: str
    hyperparameters: dict[str, Any]
    trains: tuple[str, ...]
    summary: str
    trainable_parameters: int
    adapter_bytes: int
    adapter_after_training: str
    weight_bytes: int
    gradient_bytes: int
    moment_bytes: int
    kept_bytes: int

    @property
    def training_bytes(self) -> int:
        """All of these; activations and the moving average of the weights come on top."""
        return self.weight_bytes + self.gradient_bytes + self.moment_bytes + self.kept_bytes

    def as_dict(self) -> dict[str, Any]:
        """All figures as a plain dictionary."""
        return asdict(self) | {"training_bytes": self.training_bytes}


def footprint(models: DiffusionModels, strategy: Strategy) -> Footprint:
    """A strategy's size on a base model.

    Args:
        models: a fresh base, which may be on the meta device; the strategy is attached to it.
        strategy: what is counted.

    Raises:
        ValueError: the base has nothing that the strategy could train.
    """
    with Unfilled():
        strategy.attach(models)
    trainable = num_trainable_parameters(models)
    return Footprint(
        strategy=strategy.name,
        hyperparameters=strategy.hyperparameters(),
        trains=strategy.trains,
        summary=strategy.summary,
        trainable_parameters=trainable,
        adapter_bytes=adapter_bytes(strategy.tensors(models)),
        adapter_after_training=strategy.size_after_training,
        weight_bytes=BYTES * sum(num_parameters(models.component(name)) for name in {"unet", *strategy.trains}),
        gradient_bytes=BYTES * trainable,
        moment_bytes=2 * BYTES * trainable,
        kept_bytes=BYTES * strategy.num_kept(models),
    )


def num_parameters(module: nn.Module) -> int:
    """How many numbers a module holds as parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def adapter_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the safetensors file that `export` would write: a length, a JSON header padded with spaces, the tensors."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + BYTES * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return LENGTH_FIELD + length + -length % ALIGNMENT + end
