"""Compiling the U-Net block by block, for training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn


def blocks_to_compile(unet: nn.Module) -> Iterator[nn.Module]:
    """A U-Net's residual and transformer blocks: of SD 1.5's 38, in which nearly all of its time goes, 21 differ."""
    return (module for module in unet.modules() if isinstance(module, ResnetBlock2D | BasicTransformerBlock))


def compile_blocks(unet: nn.Module, **options: Any) -> None:
    """Have each block compiled when it is first called, in place; alike ones share a graph, and paths stay as they are.

    No strategy breaks a graph. A new one is made, and the step takes longer, where a batch has another number of images
    (the last of an epoch) and where ranks change: once for each rank that DyLoRA draws, twice for each growth of SeLoRA,
    once where AdaLoRA has cut its ranks. The next trial of the same shapes in the same process needs none.

    Args:
        unet: with the strategy attached.
        options: of `torch.compile`.
    """
    for block in blocks_to_compile(unet):
        block.compile(dynamic=False, **options)
