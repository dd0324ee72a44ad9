"""DiffFit's scaled layer against its formula; and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.strategies import make_strategy
from trainables.strategies.difffit import ScaledLinear

GAMMAS = [("gamma",), ("gamma_block",), ("gamma_block", "gamma")]


def scaled(gammas: tuple[str, ...], *, bias: bool = True, dtype: torch.dtype = torch.float64) -> ScaledLinear:
    """A layer whose gammas have left 1, and lie on both sides of 0."""
    torch.manual_seed(0)
    layer = ScaledLinear(nn.Linear(5, 7, bias=bias, dtype=dtype), gammas)
    with torch.no_grad():
        for name in gammas:
            layer.get_parameter(name).copy_(torch.randn(7))
    return layer


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gammas", GAMMAS)
def test_it_is_its_formula_and_folds_exactly(gammas: tuple[str, ...], bias: bool) -> None:
    layer, x = scaled(gammas, bias=bias), inputs()
    scale = torch.stack([layer.get_parameter(name).detach().double() for name in gammas]).prod(0)
    expected = scale * (x @ layer.base.weight.T + (layer.base.bias if bias else 0))
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
    output, weight, before = layer(x), layer.base.weight, layer.base.weight.clone()
    folded = layer.folded()
    assert type(folded) is nn.Linear
    torch.testing.assert_close(folded(x), output, rtol=1e-6, atol=1e-6)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("gammas", GAMMAS)
def test_it_starts_at_the_base_exactly(gammas: tuple[str, ...]) -> None:
    base = nn.Linear(5, 7)
    x = inputs(torch.float32)
    assert torch.equal(ScaledLinear(base, gammas)(x), base(x))


def test_mixed_precision_follows_the_base_layer() -> None:
    layer = scaled(("gamma_block", "gamma"), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(inputs(torch.float32))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_a_gamma_between_two_bfloat16_numbers_acts_under_mixed_precision() -> None:
    torch.manual_seed(0)
    layer, x = ScaledLinear(nn.Linear(64, 512), ("gamma",)), torch.randn(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x).float()
        with torch.no_grad():
            layer.get_parameter("gamma").fill_(1.003)
        after = layer(x).float()
    assert (after.abs().mean() / before.abs().mean()).item() == pytest.approx(1.003, abs=1e-3)


@pytest.mark.slow
def test_gammas_and_the_norms_scales_alone_are_not_decayed(base: DiffusionModels) -> None:
    models, strategy = base.fresh(), make_strategy("difffit", {})
    strategy.attach(models)
    plain, scales = torch.optim.AdamW(strategy.param_groups(models, 1e-3), weight_decay=0.01).param_groups
    assert (plain["weight_decay"], scales["weight_decay"], plain["lr"], scales["lr"]) == (0.01, 0.0, 1e-3, 1e-3)
    names = {parameter: path.rpartition(".")[2] for path, parameter in models.unet.named_parameters()}
    assert {names[parameter] for parameter in plain["params"]} == {"bias"}
    assert {names[parameter] for parameter in scales["params"]} == {"weight", "gamma", "gamma_block"}
    assert sum(len(group["params"]) for group in (plain, scales)) == sum(
        parameter.requires_grad for parameter in models.unet.parameters()
    )


def test_a_base_without_blocks_and_an_adapted_one_are_refused(base: DiffusionModels) -> None:
    models, strategy = base.fresh(), make_strategy("difffit", {})
    strategy.attach(models)
    with pytest.raises(ValueError, match="`models` must be a base without scaled layers"):
        strategy.attach(models)
    models.unet = nn.Sequential(nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match="`difffit` must find a transformer block's layers in the U-Net, but got none"):
        strategy.attach(models)
