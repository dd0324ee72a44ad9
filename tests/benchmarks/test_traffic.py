"""What is counted of operators on tensors without values, against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import sd15_counts
from benchmarks.traffic import Traffic, traffic_of

N, IN, OUT, SIDE = 8, 32, 16, 12


def _of(work: Callable[[], object]) -> tuple[int, int, int, int]:
    traffic = traffic_of(work)
    return traffic.products.kernels, traffic.products.num_bytes, traffic.others.kernels, traffic.others.num_bytes


def test_a_linear_layer_reads_input_weight_and_bias_and_writes_its_output_and_three_gradients() -> None:
    with FakeTensorMode():
        layer, x = nn.Linear(IN, OUT), torch.empty(N, IN, requires_grad=True)
        outputs: list[Tensor] = []
        assert _of(lambda: outputs.append(layer(x))) == (1, 4 * (N * IN + IN * OUT + OUT + N * OUT), 0, 0)
        gradient = torch.empty(N, OUT)
        products = 4 * ((N * OUT + OUT * IN + N * IN) + (OUT * N + N * IN + OUT * IN))
        assert _of(lambda: outputs[0].backward(gradient)) == (2, products, 1, 4 * (N * OUT + OUT))


def test_a_convolution_and_what_follows_it_in_place() -> None:
    with FakeTensorMode(), torch.no_grad():
        layer, x = nn.Conv2d(IN, OUT, 3, padding=1), torch.empty(N, IN, SIDE, SIDE)
        numbers = N * OUT * SIDE**2
        product = 4 * (N * IN * SIDE**2 + OUT * IN * 9 + OUT + numbers)
        assert _of(lambda: layer(x).relu_()) == (1, product, 1, 4 * 2 * numbers)


@pytest.mark.parametrize(
    ("work", "num_bytes"),
    [
        (lambda x: x.view(-1).T.detach().expand(3, -1)[None], 0),
        (lambda x: torch.empty_like(x), 0),
        (lambda x: x.to(torch.bfloat16), (4 + 2) * N * IN),
        (lambda x: x.to(torch.float32), 0),
        (lambda x: x[:, :1].expand(N, IN) + 1, 4 * (N + N * IN)),
    ],
)
def test_views_are_free_and_what_is_repeated_is_read_once(work: Callable[[Tensor], Tensor], num_bytes: int) -> None:
    with FakeTensorMode(), torch.no_grad():
        x = torch.empty(N, IN)
        assert _of(lambda: work(x)) == (0, 0, int(num_bytes > 0), num_bytes)


def test_the_same_is_counted_with_values_as_without() -> None:
    """Of a part of the U-Net that has all that it consists of."""
    counts = []
    for mode in (FakeTensorMode(), Traffic()):  # the second changes nothing, and lets tensors have values
        with mode:
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            x = torch.zeros(2, 5, 16)
            counts.append(_of(lambda layer=layer, x=x: layer(x).square().mean().backward()))
    assert counts[0] == counts[1] and counts[0][0] > 0


@pytest.mark.slow
def test_a_toys_step_is_counted() -> None:
    full, half = sd15_counts.rows_of(["lora"], ["no", "bf16"], batch=2, toy=True)
    assert full.traffic.products.kernels == half.traffic.products.kernels > 100
    assert half.traffic.products.num_bytes < 0.6 * full.traffic.products.num_bytes
    latents, states, tokens = 4 * 16 * 16, 77, 8
    noise = 2 * 2 * 4 * latents
    assert full.sent_bytes_kept == noise + 3 * 2 * tokens
    assert full.sent_bytes - full.sent_bytes_kept == 2 * (4 * 2 * latents + 4 * states * 64) - 2 * 2 * tokens
    assert (
        half.sent_bytes - half.sent_bytes_kept
        == (full.sent_bytes - full.sent_bytes_kept + 2 * 2 * tokens) / 2 - 2 * 2 * tokens
    )
