"""The low-rank linear layer made in one piece, against finite differences and plain operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.strategies.low_rank_linear import Rows, low_rank_linear

OUT, IN, RANK, SCALE = 7, 5, 3, 1.5
KINDS = [(with_rows, bias) for with_rows in (False, True) for bias in (False, True)]


def parts(*, bias: bool, size: int | None = None) -> tuple[nn.Linear, Tensor, Tensor, Rows]:
    """A frozen layer, both factors, magnitudes of either sign and norms."""
    torch.manual_seed(0)
    num_out, num_in = size or OUT, size or IN
    base = nn.Linear(num_in, num_out, bias=bias, dtype=torch.float64).requires_grad_(False)
    a = torch.randn(RANK, num_in, dtype=torch.float64, requires_grad=True)
    b = torch.randn(num_out, RANK, dtype=torch.float64, requires_grad=True)
    magnitude = torch.randn(num_out, dtype=torch.float64, requires_grad=True)
    return base, a, b, Rows(magnitude, 1 + torch.rand(num_out, dtype=torch.float64))


def inputs(size: int = IN) -> Tensor:
    return torch.randn(2, 3, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)


def plainly(x: Tensor, base: nn.Linear, a: Tensor, b: Tensor, *, scale: float, rows: Rows | None) -> Tensor:
    """The same of torch's own operations."""
    output = functional.linear(x, base.weight) + scale * functional.linear(functional.linear(x, a), b)
    scaled = output if rows is None else output * (rows.magnitude / rows.norm)
    return scaled if base.bias is None else scaled + base.bias


@pytest.mark.parametrize(("with_rows", "bias"), KINDS)
def test_gradients_are_those_of_finite_differences(with_rows: bool, bias: bool) -> None:
    base, a, b, rows = parts(bias=bias)

    def of(x: Tensor, a: Tensor, b: Tensor, magnitude: Tensor) -> Tensor:
        return low_rank_linear(x, base, a, b, scale=SCALE, rows=Rows(magnitude, rows.norm) if with_rows else None)

    magnitude = rows.magnitude if with_rows else rows.magnitude.detach()
    assert torch.autograd.gradcheck(of, (inputs(), a, b, magnitude))


@pytest.mark.parametrize(("with_rows", "bias"), KINDS)
def test_an_input_without_gradient_leaves_the_factors_theirs(with_rows: bool, bias: bool) -> None:
    base, a, b, rows = parts(bias=bias)
    x, given = inputs().detach(), rows if with_rows else None
    trained = [a, b, *([rows.magnitude] if with_rows else [])]
    ours = torch.autograd.grad(low_rank_linear(x, base, a, b, scale=SCALE, rows=given).square().sum(), trained)
    expected = torch.autograd.grad(plainly(x, base, a, b, scale=SCALE, rows=given).square().sum(), trained)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("with_rows", "bias"), KINDS)
def test_under_autocast_it_is_about_as_exact_as_plain_operations(with_rows: bool, bias: bool) -> None:
    """Root mean squares of the errors beside float64, of the output and of the gradients of a fixed sum of it."""
    base, a, b, rows = parts(bias=bias, size=64)
    weights = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(2))

    def results(function: Any, dtype: torch.dtype) -> list[Tensor]:
        x, *factors, magnitude, norm = (
            tensor.detach().to(dtype).requires_grad_() for tensor in (inputs(64), a, b, *rows)
        )
        given = Rows(magnitude, norm.detach()) if with_rows else None
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            output = function(x, base.to(dtype), *factors, scale=SCALE, rows=given)
        output = output.bfloat16() if dtype == torch.float32 else output
        leaves = [x, *factors, *([magnitude] if with_rows else [])]
        return [output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)]

    exact = results(plainly, torch.float64)
    ours, plain = results(low_rank_linear, torch.float32), results(plainly, torch.float32)
    for mine, theirs, truth in zip(ours, plain, exact, strict=True):
        error, usual, size = (values.square().mean().sqrt() for values in (mine - truth, theirs - truth, truth))
        assert 0 < error <= 1.5 * usual < 0.03 * size


def test_a_row_of_magnitude_zero_is_zero_and_takes_no_gradient() -> None:
    base, a, b, rows = parts(bias=False)
    with torch.no_grad():
        rows.magnitude[2] = 0.0
    output = low_rank_linear(inputs(), base, a, b, scale=SCALE, rows=rows)
    output.sum().backward()
    assert rows.magnitude.grad is not None
    assert not output[..., 2].any() and rows.magnitude.grad[2] == 0.0
    assert torch.isfinite(rows.magnitude.grad).all()


def test_no_rank_at_all_leaves_the_base_layer() -> None:
    base, a, b, _ = parts(bias=True)
    x = inputs()
    torch.testing.assert_close(low_rank_linear(x, base, a[:0], b[:, :0], scale=SCALE), base(x))


def test_an_empty_batch_gives_an_empty_output() -> None:
    base, a, b, rows = parts(bias=True)
    assert low_rank_linear(inputs()[:0], base, a, b, scale=SCALE, rows=rows).shape == (0, 3, OUT)


@pytest.mark.slow
@pytest.mark.parametrize("with_rows", [False, True])
def test_it_compiles_without_a_graph_break(with_rows: bool) -> None:
    base, a, b, rows = parts(bias=True)
    given = rows if with_rows else None

    def gradients(compiled: bool) -> tuple[Tensor, ...]:
        function = torch.compile(low_rank_linear, backend="aot_eager", fullgraph=True) if compiled else low_rank_linear
        x = inputs()
        return torch.autograd.grad(function(x, base, a, b, scale=SCALE, rows=given).square().sum(), [x, a, b])

    for mine, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(mine, other)
