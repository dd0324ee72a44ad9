"""A linear layer with a low-rank update, output and gradient each in one piece: fewer passes over the activations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Rows(NamedTuple):
    """What DoRA scales the output's channels by: magnitude / norm, both float32[out].

    The magnitude takes a gradient, the norm is a constant. A row of magnitude exactly 0 takes none either:
    its true one cannot be had back from an output of 0.

    Attributes:
        magnitude: float32[out], the length that each output channel's weights have.
        norm: float32[out], the length of the base's weights with the update.
    """

    magnitude: Tensor
    norm: Tensor


def low_rank_linear(
    x: Tensor,
    base: nn.Linear,
    a: Tensor,
    b: Tensor,
    *,
    scale: float,
    rows: Rows | None = None,
    acting: Tensor | None = None,
) -> Tensor:
    """magnitude / norm * (W x + s B A x) + bias, the first factor only with `rows`.

    The gradient goes to x, A, B and the magnitude, and cannot be differentiated again; the base is frozen.

    Args:
        x: [..., in]; with `acting` [n, ..., in].
        base: holds W, [out, in], and the bias.
        a: [rank, in].
        b: [out, rank].
        scale: s.
        rows: DoRA's scaling of the rows of W + s B A.
        acting: [n, rank], 1 where a row of A acts on an image and 0 where it does not; None: all act on all.

    Returns:
        [..., out], in autocast's dtype where that is on, else in x's.
    """
    device = x.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if casts else x.dtype
    bias = None if base.bias is None else base.bias.to(dtype)
    flat = x.reshape(-1, base.in_features).to(dtype)
    output: Tensor = _LowRankLinear.apply(
        *(flat, base.weight.to(dtype), bias, a.to(dtype), b.to(dtype), scale),
        *(rows or (None, None)),
        None if acting is None else acting.to(dtype),
    )
    return output.view(*x.shape[:-1], base.out_features)


def full_precision(device: str) -> AbstractContextManager[Any]:
    """Computes as it stands, whatever the trial's precision; also on shapes alone, which know no autocast."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


class _LowRankLinear(torch.autograd.Function):
    """Sums go into the product that comes second, instead of into a third tensor.

    The magnitude's gradient is that of the scale, sum(gradient * output) / (magnitude / norm), over the norm. The output
    that this needs is kept without the bias.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        magnitude: Tensor | None,
        norm: Tensor | None,
        acting: Tensor | None,
    ) -> Tensor:
        reduced = _act((x @ a.T).mul_(scale), acting)
        ctx.scale = scale
        kept = (x, weight if ctx.needs_input_grad[0] else None, a, b, reduced, acting)
        if magnitude is None or norm is None:
            ctx.save_for_backward(*kept)
            output = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
            return output.addmm_(reduced, b.T)
        row_scale = magnitude / norm
        # The product is rounded, not the scale, which bfloat16 would move in steps of 0.8 % for all of a row at once.
        output = (x @ weight.T).addmm_(reduced, b.T).mul_(row_scale)
        ctx.save_for_backward(*kept, output, magnitude, row_scale)
        return output if bias is None else output + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, reduced, acting, *rows = ctx.saved_tensors
        magnitude_gradient = None
        if rows:
            output, magnitude, row_scale = rows
            product = (gradient.to(magnitude.dtype) * output).sum(0) / magnitude
            magnitude_gradient = product.masked_fill_(magnitude == 0, 0)
            gradient = torch.mul(gradient, row_scale, out=torch.empty_like(gradient))
        reduced_gradient = _act((gradient @ b).mul_(ctx.scale), acting)
        x_gradient = (gradient @ weight).addmm_(reduced_gradient, a) if ctx.needs_input_grad[0] else None
        a_gradient, b_gradient = reduced_gradient.T @ x, gradient.T @ reduced
        return x_gradient, None, None, a_gradient, b_gradient, None, magnitude_gradient, None, None


def _act(reduced: Tensor, acting: Tensor | None) -> Tensor:
    """What A makes of the images' tokens, [n * tokens, rank], in place without the rows that do not act on an image."""
    if acting is not None:
        reduced.view(len(acting), -1, reduced.shape[-1]).mul_(acting[:, None])
    return reduced
