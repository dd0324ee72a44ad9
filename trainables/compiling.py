"""Compiling the U-Net block by block, for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch._dynamo
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

MOST_GRAPHS: Final = 4096
"""Graphs that residual or transformer blocks may have in a process: one for each kind of block in each shape, rank and
strategy. Torch stops at 8, and computes what comes later uncompiled, without an error: SD 1.5 alone has 21 kinds."""


class CompilationError(RuntimeError):
    """The U-Net's blocks could not be compiled here."""


def blocks_to_compile(unet: nn.Module) -> Iterator[nn.Module]:
    """A U-Net's residual and transformer blocks: of SD 1.5's 38, in which nearly all of its time goes, 21 differ."""
    return (module for module in unet.modules() if isinstance(module, ResnetBlock2D | BasicTransformerBlock))


def compile_blocks(unet: nn.Module, **options: Any) -> None:
    """Have each block compiled when it is first called, in place; alike ones share a graph, and paths stay as they are.

    No strategy breaks a graph. A new one is made, and the step takes longer, where a batch has another number of images
    and where a block's ranks change: for each rank that DyLoRA draws, for one more that SeLoRA tries and for what it keeps.
    The next trial of the same shapes in the same process needs none.

    Args:
        unet: with the strategy attached.
        options: of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = MOST_GRAPHS
    for block in blocks_to_compile(unet):
        block.compile(dynamic=False, **options)


@contextmanager
def expected_to_compile() -> Iterator[None]:
    """Name what is missing where a block is called, or its gradient computed, for the first time.

    Raises:
        CompilationError: torch's compiler failed, mostly for want of one for C++.
    """
    try:
        yield
    except BackendCompilerFailed as error:
        cause = error.inner_exception
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from error
        said = (str(cause).strip().splitlines() or [""])[0]
        raise CompilationError(
            f"`compute.compile` must find a compiler that works, but got {type(cause).__name__}: {said} Install g++ and "
            "Python's headers where trials run, or set compute.compile=false."
        ) from error
