"""Frozen weights in half precision, where training computes with them in half precision anyway."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from trainables.base_models.models import DiffusionModels
from trainables.numerics import HALF

CAST_BY_AUTOCAST = (nn.Linear, nn.Conv2d)
"""Layers whose weights autocast casts at every step. It computes norms in float32, and embeddings as they are."""


def halve_frozen(models: DiffusionModels, mixed_precision: str) -> None:
    """Keep frozen weights as autocast would cast them at every step, in place: outputs stay the same to the bit.

    Layers that read the base's weight by themselves, in full precision, say so by `reads_base_in_full`; theirs stay.

    Args:
        models: with an attached strategy; used for training alone from now on.
        mixed_precision: `bf16`, `fp16`, or `no`, where nothing changes.
    """
    if mixed_precision not in HALF:
        return
    for component in models.components().values():
        for layer in halvable(component):
            for parameter in layer.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(HALF[mixed_precision])


def halvable(component: nn.Module) -> Iterator[nn.Module]:
    """The layers of a component whose frozen weights are only ever used as autocast casts them."""
    readers = [module for module in component.modules() if getattr(module, "reads_base_in_full", False)]
    read = {inner for reader in readers for inner in reader.modules()}
    for module in component.modules():
        if isinstance(module, CAST_BY_AUTOCAST) and module not in read:
            yield module
