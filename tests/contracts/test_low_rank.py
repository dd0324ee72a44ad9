"""Low-rank layers against their formulas in float64 and against PEFT; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.base_models.models import DiffusionModels, load_base
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters
from trainables.strategies.dora import DoRALayer
from trainables.strategies.low_rank import LowRankLayer

OUT, IN, RANK, ALPHA = 7, 5, 3, 4.5
LAYERS: dict[str, type[LowRankLayer]] = {"lora": LowRankLayer, "dora": DoRALayer}


def adapted(layer_type: type[LowRankLayer], *, bias: bool = True, dtype: torch.dtype = torch.float64) -> LowRankLayer:
    """A layer whose factors have left their initial values."""
    torch.manual_seed(0)
    layer = layer_type(nn.Linear(IN, OUT, bias=bias, dtype=dtype).requires_grad_(False), RANK, ALPHA / RANK)
    with torch.no_grad():
        for parameter in (layer.lora_A, layer.lora_B):
            parameter.copy_(torch.randn_like(parameter))
        if isinstance(layer, DoRALayer):
            layer.lora_magnitude_vector.mul_(1 + 0.3 * torch.rand(OUT))
    return layer.to(dtype)


def adapted_convolution(layer_type: type[LowRankLayer]) -> LowRankLayer:
    """The same of a strided convolution with padding."""
    torch.manual_seed(0)
    base = nn.Conv2d(IN, OUT, 3, stride=2, padding=1, dtype=torch.float64).requires_grad_(False)
    layer = layer_type(base, RANK, ALPHA / RANK).to(torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def pictures() -> Tensor:
    return torch.randn(2, IN, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 6, IN, generator=torch.Generator().manual_seed(1), dtype=dtype, requires_grad=True)


def in_peft(layer: LowRankLayer) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """PEFT's own layer with the same weights and factors, and its trained parameters under our names."""
    plain = nn.Linear(IN, OUT, bias=layer.base.bias is not None, dtype=layer.lora_A.dtype)
    plain.load_state_dict(layer.base.state_dict())
    holder = nn.Sequential(plain)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=isinstance(layer, DoRALayer))
    inject_adapter_in_model(config, holder)
    module: Any = holder[0]
    theirs = {"lora_A": module.lora_A["default"].weight, "lora_B": module.lora_B["default"].weight}
    if isinstance(layer, DoRALayer):
        theirs["lora_magnitude_vector"] = module.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.data = getattr(layer, name).detach().clone()
    return holder, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_output_and_gradients_equal_pefts(name: str, bias: bool) -> None:
    layer, x = adapted(LAYERS[name], bias=bias), inputs()
    peft, theirs = in_peft(layer)
    weights = torch.linspace(-1, 1, 2 * 6 * OUT, dtype=x.dtype).view(2, 6, OUT)
    ours_out, their_out = layer(x), peft(x)
    torch.testing.assert_close(ours_out, their_out, rtol=1e-10, atol=1e-10)
    trained = [getattr(layer, key) for key in theirs]
    ours = torch.autograd.grad((ours_out * weights).sum(), [x, *trained])
    expected = torch.autograd.grad((their_out * weights).sum(), [x, *theirs.values()])
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolutions_output_and_gradients_equal_pefts(name: str) -> None:
    layer, x = adapted_convolution(LAYERS[name]), pictures()
    plain = nn.Conv2d(IN, OUT, 3, stride=2, padding=1, dtype=torch.float64)
    plain.load_state_dict(layer.base.state_dict())
    holder = nn.Sequential(plain)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], use_dora=name == "dora")
    inject_adapter_in_model(config, holder)
    theirs = {key: value for key, value in holder.named_parameters() if value.requires_grad}
    with torch.no_grad():
        for key, tensor in layer.peft_tensors().items():
            (match,) = [parameter for path, parameter in theirs.items() if key.partition(".")[0] in path]
            match.data = tensor.clone()
    ours_out, their_out = layer(x), holder(x)
    torch.testing.assert_close(ours_out, their_out, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 1, ours_out.numel(), dtype=x.dtype).view_as(ours_out)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad((ours_out * weights).sum(), [x, *trained])
    expected = torch.autograd.grad((their_out * weights).sum(), [x, *theirs.values()])
    assert len(ours) == len(expected)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other.view_as(mine), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_folding_a_convolution_computes_the_same(name: str) -> None:
    layer, x = adapted_convolution(LAYERS[name]), pictures()
    expected = layer(x)
    folded = layer.folded()
    assert type(folded) is nn.Conv2d
    torch.testing.assert_close(folded(x), expected)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rank_stabilised_scaling_is_pefts(rank: int) -> None:
    strategy = make_strategy("lora", {"rank": rank, "alpha": 6.0, "rslora": True})
    holder = nn.Sequential(nn.Linear(IN, OUT))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=6.0, target_modules=["0"], use_rslora=True), holder)
    module: Any = holder[0]
    assert strategy.scale == pytest.approx(module.scaling["default"])


def test_lora_plus_trains_b_at_its_ratio(base: DiffusionModels) -> None:
    models, strategy = base.fresh(), make_strategy("lora", {"lora_plus_ratio": 16})
    strategy.attach(models)
    slow, fast = strategy.param_groups(models, 1e-4)
    assert (slow["lr"], fast["lr"]) == pytest.approx((1e-4, 16e-4))
    names = {id(parameter): path.rpartition(".")[2] for path, parameter in trained_parameters(models)}
    assert {names[id(parameter)] for parameter in slow["params"]} == {"lora_A"}
    assert {names[id(parameter)] for parameter in fast["params"]} == {"lora_B"}
    assert len(slow["params"]) + len(fast["params"]) == len(names)


def test_lora_is_its_formula() -> None:
    layer, x = adapted(LowRankLayer), inputs()
    weight = layer.base.weight + ALPHA / RANK * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base.bias)


def test_dora_is_its_formula() -> None:
    layer, x = adapted(DoRALayer), inputs()
    direction = layer.base.weight + ALPHA / RANK * layer.lora_B @ layer.lora_A
    weight = layer.lora_magnitude_vector[:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base.bias)
    torch.testing.assert_close(layer.weight(), weight)


def test_doras_norm_is_a_constant_to_the_gradient() -> None:
    layer, x = adapted(DoRALayer), inputs()
    norm = layer.direction_norm()
    direction = layer.base.weight + ALPHA / RANK * layer.lora_B @ layer.lora_A
    by_hand = (x @ (layer.lora_magnitude_vector / norm)[:, None].mul(direction).T).square().sum()
    expected = torch.autograd.grad(by_hand, [layer.lora_A, layer.lora_B])
    ours = torch.autograd.grad((layer(x) - layer.base.bias).square().sum(), [layer.lora_A, layer.lora_B])
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other)


class ShapesMade(TorchDispatchMode):
    """Remembers the shape of every tensor that an operation returns, views of the weight aside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()
        self.weight_address = weight.data_ptr()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.data_ptr() != self.weight_address:
            self.shapes.add(tuple(result.shape))
        return result


@pytest.mark.parametrize("name", LAYERS)
def test_no_step_forms_a_matrix_of_the_weights_size(name: str) -> None:
    layer, x = adapted(LAYERS[name]), inputs()
    with ShapesMade(layer.base.weight) as made:
        layer(x).sum().backward()
    assert not {(OUT, IN), (IN, OUT)} & made.shapes
    with ShapesMade(layer.base.weight) as made:
        layer.weight()
    assert (OUT, IN) in made.shapes


def test_dora_starts_at_the_base_exactly() -> None:
    layer = DoRALayer(nn.Linear(IN, OUT), RANK, ALPHA / RANK)
    assert torch.equal(layer.row_scale(), torch.ones(OUT))


def test_a_weight_row_of_zeros_stays_finite() -> None:
    base = nn.Linear(IN, OUT)
    nn.init.zeros_(base.weight)
    layer = DoRALayer(base.requires_grad_(False), RANK, ALPHA / RANK)
    output = layer(inputs(torch.float32))
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", LAYERS)
def test_mixed_precision_follows_the_base_layer(name: str) -> None:
    layer, x = adapted(LAYERS[name], dtype=torch.float32), inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x), rtol=0.05, atol=0.1)
    output.float().sum().backward()
    assert layer.lora_A.grad is not None and layer.lora_A.grad.dtype == torch.float32


def test_doras_norm_keeps_full_precision_under_autocast() -> None:
    layer = adapted(DoRALayer, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        norm = layer.direction_norm()
    assert torch.equal(norm, layer.direction_norm())


@pytest.mark.parametrize("factor", [1.003, 1.012])
def test_a_small_change_of_doras_magnitude_survives_bfloat16(factor: float) -> None:
    """bfloat16 has nothing between 1 and 1.0078, nor between that and 1.0156."""
    base = nn.Linear(64, 64, bias=False).requires_grad_(False)
    layer, x = DoRALayer(base, RANK, ALPHA / RANK), torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = layer(x).double()
        layer.lora_magnitude_vector.mul_(factor)
        after = layer(x).double()
    assert ((before * after).sum() / before.square().sum()).item() == pytest.approx(factor, abs=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_a_base_in_half_precision_is_adapted_too(name: str) -> None:
    layer = LAYERS[name](nn.Linear(IN, OUT, dtype=torch.bfloat16), RANK, ALPHA / RANK)
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
    assert layer(inputs(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", LAYERS)
def test_folding_computes_the_same_and_writes_to_no_shared_weight(name: str) -> None:
    layer, x = adapted(LAYERS[name]), inputs()
    shared, before, expected = layer.base.weight, layer.base.weight.clone(), layer(x)
    folded = layer.folded()
    assert type(folded) is nn.Linear
    torch.testing.assert_close(folded(x), expected)
    assert torch.equal(shared, before)


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini")


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("lroa", {}, "`strategy` must be a known name, but got 'lroa'. Did you mean 'lora'"),
        ("lora", {"rnak": 8}, "`hyperparameter of lora` must be a known name, but got 'rnak'. Did you mean 'rank'"),
        (
            "bitfit",
            {"rank": 8},
            "`hyperparameter of bitfit` must be a known name, but got 'rank'. There is none; leave it out.",
        ),
        ("lora", {"rank": 0}, "`rank` must be a whole number, at least 1, but got 0"),
        ("dora", {"rank": 2.5}, "`rank` must be a whole number, at least 1, but got 2.5"),
        ("lora", {"alpha": 0}, "`alpha` must be a positive number, but got 0"),
        ("lora", {"alpha": float("nan")}, "`alpha` must be a positive number, but got nan"),
        ("difffit", {"attention_gammas": 1}, "`attention_gammas` must be true or false, but got 1"),
        (
            "unet+text_encoder",
            {"text_encoder.lr_ratio": 0},
            "`text_encoder.lr_ratio` must be a positive number, but got 0",
        ),
        ("lora", {"alpha": 10**400}, "`alpha` must be a positive number, but got 1000"),
        ("adalora", {"beta1": 10**400}, "`beta1` must be a number, but got 1000"),
        ("vae", {"reconstruction_weight": True}, "`reconstruction_weight` must be a positive number, but got True"),
        (
            "unet+text_encoder",
            {"text_encoder.lr_ratio": True},
            "`text_encoder.lr_ratio` must be a positive number, but got True",
        ),
        ("lora", {"targets": ["attention"]}, "`targets` must be a known name, but got ['attention']"),
        ("lora", {"components": ["unet"]}, "`components` must be a known name, but got ['unet']"),
        ("attention", {"layers": ["cross"]}, "`layers` must be a known name, but got ['cross']"),
        ("lora", {"alpha": True}, "`alpha` must be a positive number, but got True"),
        ("lora", {"components": "vae"}, "`components` must be a known name, but got 'vae'"),
        ("lora", {"rslora": 1}, "`rslora` must be true or false, but got 1"),
        ("lora", {"lora_plus_ratio": -1}, "`lora_plus_ratio` must be a positive number, but got -1"),
        ("vae", {"reconstruction_weight": 0}, "`reconstruction_weight` must be a positive number, but got 0"),
        (
            "lora+text_encoder",
            {"rank": 8},
            "`hyperparameter of lora+text_encoder` must be a known name, but got 'rank'",
        ),
        (
            "lora+lora",
            {},
            "`lora+lora` must combine strategies that train different components, but got lora on unet and",
        ),
        ("lora+txt_encoder", {}, "`strategy` must be a known name, but got 'txt_encoder'. Did you mean 'text_encoder'"),
        ("attention", {"layers": "corss"}, "`layers` must be a known name, but got 'corss'. Did you mean 'cross'"),
        (
            "lora",
            {"targets": "atention"},
            "`targets` must be a known name, but got 'atention'. Did you mean 'attention'",
        ),
    ],
)
def test_wrong_hyperparameters_are_answered(name: str, hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as answer:
        make_strategy(name, hyperparameters)
    assert message in str(answer.value)


def test_targets_that_match_nothing_are_an_error(base: DiffusionModels) -> None:
    models = base.fresh()
    models.unet = nn.Sequential(nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match="`targets` 'attention' must match at least one layer of unet, but got none"):
        make_strategy("lora", {}).attach(models)
    models.unet = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))
    with pytest.raises(ValueError, match="`bitfit` must match at least one parameter of the base model, but got none"):
        make_strategy("bitfit", {}).attach(models)


def test_an_adapted_model_is_not_adapted_again(base: DiffusionModels) -> None:
    models = base.fresh()
    make_strategy("lora", {}).attach(models)
    with pytest.raises(ValueError, match="`models` must be a base without low-rank layers"):
        make_strategy("dora", {}).attach(models)
