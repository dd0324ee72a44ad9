"""AdaLoRA against PEFT's layers, importance and budgets, and what becomes of layers that lose all their ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora.layer import SVDConv2d, SVDLinear
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels, resolve_base
from trainables.exports import EXPORTS
from trainables.loss import DenoisingLoss
from trainables.sampling import generate_batches, noise_scheduler_of
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.adalora import AdaLoRA, AdaLoRALayer, allocate
from trainables.strategies.base import Change, TrainingStep

ALPHA = 12.0
TINY = {"rank": 2, "initial_ratio": 2.5, "alpha": ALPHA, "targets": "linear+conv"}


def tiny_net() -> nn.Sequential:
    torch.manual_seed(3)
    layers = (nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    return nn.Sequential(*layers).double()


def attached(base: DiffusionModels, strategy: AdaLoRA, net: nn.Module | None = None) -> DiffusionModels:
    """The strategy on a small network in the U-Net's place."""
    models = base.fresh()
    if net is not None:
        models.unet = net
    torch.manual_seed(0)
    strategy.attach(models)
    if net is not None:
        models.unet.double()
    return models


def layers_of(models: DiffusionModels, strategy: AdaLoRA) -> dict[str, AdaLoRALayer]:
    return strategy.adaptive_layers(models)


def adapted(base: nn.Linear | nn.Conv2d, rank: int = 3) -> AdaLoRALayer:
    """A layer whose triplets have left their initial values; its scale is PEFT's, which divides by rank + 1e-5."""
    torch.manual_seed(0)
    layer = AdaLoRALayer(base.requires_grad_(False), rank, ALPHA / (rank + 1e-5)).double()
    with torch.no_grad():
        for parameter in (layer.lora_A, layer.lora_B, layer.lora_E):
            parameter.copy_(torch.randn_like(parameter))
    return layer


def in_peft(layer: AdaLoRALayer) -> tuple[nn.Module, list[nn.Parameter]]:
    """PEFT's own layer with the same weights and triplets."""
    kind = SVDConv2d if isinstance(layer.base, nn.Conv2d) else SVDLinear
    config = AdaLoraConfig(init_r=layer.rank, total_step=10)
    module: Any = kind(layer.base, "default", config, r=layer.rank, lora_alpha=ALPHA).double()
    theirs = [module.lora_A["default"], module.lora_B["default"], module.lora_E["default"]]
    with torch.no_grad():
        for parameter, ours in zip(theirs, (layer.lora_A, layer.lora_B, layer.lora_E), strict=True):
            parameter.copy_(ours)
    return module, theirs


@pytest.mark.parametrize(
    ("base", "shape"),
    [
        (nn.Linear(5, 7, dtype=torch.float64), (2, 6, 5)),
        (nn.Conv2d(4, 7, 3, stride=2, padding=1, dtype=torch.float64), (2, 4, 8, 8)),
    ],
    ids=["linear", "convolution"],
)
def test_output_and_gradients_equal_pefts(base: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> None:
    layer, x = adapted(base), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    peft, theirs = in_peft(layer)
    ours_out, their_out = layer(x), peft(x)
    torch.testing.assert_close(ours_out, their_out, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 1, ours_out.numel(), dtype=x.dtype).view_as(ours_out)
    ours = torch.autograd.grad((ours_out * weights).sum(), [x, layer.lora_A, layer.lora_B, layer.lora_E])
    expected = torch.autograd.grad((their_out * weights).sum(), [x, *theirs])
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def peft_twin(models: DiffusionModels, strategy: AdaLoRA, **schedule: int) -> Any:
    """PEFT's AdaLoRA on the same small network, at the same initial values."""
    config = AdaLoraConfig(
        init_r=strategy.initial_rank,
        target_r=strategy.rank,
        lora_alpha=strategy.alpha,
        target_modules=["0", "2", "4"],
        beta1=strategy.beta1,
        beta2=strategy.beta2,
        orth_reg_weight=strategy.orthogonality_weight,
        **schedule,
    )
    twin = get_peft_model(tiny_net(), config).double()
    for name, layer in layers_of(models, strategy).items():
        layer.scale = strategy.alpha / (strategy.initial_rank + 1e-5)
        theirs: Any = twin.base_model.model.get_submodule(name.removeprefix("unet."))
        with torch.no_grad():
            for key in ("lora_A", "lora_B", "lora_E"):
                getattr(theirs, key)["default"].copy_(getattr(layer, key))
    return twin


def error_of(net: Callable[[Tensor], Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    return (net(x) - torch.randn(32, 4, generator=generator, dtype=torch.float64)).square().mean()


@pytest.mark.slow
def test_every_step_keeps_what_pefts_allocator_keeps(base: DiffusionModels) -> None:
    num_steps = 230
    strategy = AdaLoRA(**TINY, initial_share=0.1, final_share=0.2)
    models = attached(base, strategy, tiny_net())
    budget = strategy.budget(3, num_steps)
    assert (budget.start, budget.end, budget.every) == (23, 184, 2)
    schedule = {"tinit": budget.start, "tfinal": num_steps - budget.end, "deltaT": budget.every}
    twin = peft_twin(models, strategy, total_step=num_steps, **schedule)
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2))
    their_optimizer = torch.optim.AdamW([p for name, p in twin.named_parameters() if "lora_" in name], lr=1e-2)
    patterns = 0
    for number in range(num_steps):
        step = TrainingStep(number=number, num_steps=num_steps, seed=0)
        strategy.on_step_start(models, step)
        error_of(models.unet).backward()
        optimizer.step()
        change = strategy.on_step_end(models, step)
        optimizer.zero_grad()
        error_of(twin).backward()
        their_optimizer.step()
        twin.base_model.update_and_allocate(number + 1)
        their_optimizer.zero_grad()
        pattern = twin.peft_config["default"].rank_pattern
        for name, layer in layers_of(models, strategy).items():
            theirs: Any = twin.base_model.model.get_submodule(name.removeprefix("unet."))
            torch.testing.assert_close(layer.lora_E, theirs.lora_E["default"], rtol=1e-6, atol=1e-9)
            if change is not None:
                (mask,) = [mask for key, mask in pattern.items() if name.removeprefix("unet.") == key.split(".")[-3]]
                assert layer.kept == [row for row, is_kept in enumerate(mask) if is_kept]
                assert change.ranks[name] == sum(mask)
        patterns += change is not None
    assert patterns == (184 - 24) // 2 + 1
    assert len({layer.lora_E.count_nonzero().item() for layer in layers_of(models, strategy).values()}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 40, 1000, 12345])
def test_the_budget_is_pefts(base: DiffusionModels, num_steps: int) -> None:
    strategy = AdaLoRA(**TINY)
    models = attached(base, strategy, tiny_net())
    budget = strategy.budget(3, num_steps)
    allocations = [step for step in range(1, num_steps + 1) if budget.is_allocated(step)]
    assert allocations[-1] == budget.end <= num_steps
    assert 1 <= len(allocations) <= 202
    if num_steps < 3:
        return  # PEFT's configuration refuses a training without a falling budget
    schedule = {"tinit": budget.start, "tfinal": num_steps - budget.end, "deltaT": budget.every}
    allocator = peft_twin(models, strategy, total_step=num_steps, **schedule).base_model.rankallocator
    assert [budget.at(step) for step in range(num_steps)] == [allocator.budget_schedule(s)[0] for s in range(num_steps)]


def short_training(models: DiffusionModels, strategy: AdaLoRA, num_steps: int) -> list[Change | None]:
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2))
    changes = []
    for number in range(num_steps):
        step = TrainingStep(number=number, num_steps=num_steps, seed=0)
        strategy.on_step_start(models, step)
        error_of(models.unet).backward()
        optimizer.step()
        changes.append(strategy.on_step_end(models, step))
        optimizer.zero_grad()
    return changes


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 24])
def test_exactly_the_final_budget_is_left(base: DiffusionModels, num_steps: int) -> None:
    strategy = AdaLoRA(**TINY)
    models = attached(base, strategy, tiny_net())
    assert strategy.num_parameters(models) == 5 * (14 + 16 + 12 + 3)
    changes = [change for change in short_training(models, strategy, num_steps) if change is not None]
    ranks = changes[-1].ranks
    assert ranks.keys() == {"unet.0", "unet.2", "unet.4"}
    assert sum(ranks.values()) == strategy.rank * 3
    assert sum(tensor.numel() for path, tensor in strategy.tensors(models).items() if "lora_E" in path) == 6
    outgoing = {"unet.0": 14, "unet.2": 16, "unet.4": 12}
    assert strategy.num_parameters(models) == sum(rank * (outgoing[path] + 1) for path, rank in ranks.items())
    for layer in layers_of(models, strategy).values():
        assert layer.kept is not None
        dropped = [row for row in range(5) if row not in layer.kept]
        assert layer.lora_E[dropped].abs().sum() == 0


def test_equal_scores_leave_the_exact_budget_too() -> None:
    layers = [AdaLoRALayer(nn.Linear(3, 3), 4, 1.0) for _ in range(2)]
    allocate(layers, 5)
    assert [layer.kept for layer in layers] == [[0, 1, 2, 3], [0]]


def test_a_dropped_triplet_acts_within_steps_only_until_the_last_choice(base: DiffusionModels) -> None:
    strategy = AdaLoRA(**TINY)
    models = attached(base, strategy, tiny_net())
    short_training(models, strategy, 10)
    layer = layers_of(models, strategy)["unet.2"]
    with torch.no_grad():
        layer.lora_E.fill_(1.0)
    layer.keep([1, 3])
    with torch.no_grad():
        layer.lora_E.fill_(1.0)  # as an optimiser step may
    a, b = layer.factors()
    assert (a.shape, b.shape) == ((2, 8), (8, 2))
    assert torch.equal(a, layer.lora_A[[1, 3]]) and torch.equal(b, layer.lora_B[:, [1, 3]])
    strategy.on_step_start(models, TrainingStep(number=5, num_steps=10, seed=0))
    assert len(layer.factors()[0]) == 5


def test_overflowing_gradients_teach_nothing(base: DiffusionModels) -> None:
    strategy = AdaLoRA(**TINY)
    models = attached(base, strategy, tiny_net())
    layers = layers_of(models, strategy)
    error_of(models.unet).backward()
    strategy.learn_importance(layers.values())
    layer = layers["unet.0"]
    assert layer.importance is not None and layer.lora_B.grad is not None
    before = {name: values.clone() for name, values in layer.importance.smoothed.items()}
    layers["unet.4"].lora_B.grad[0, 0] = float("inf")  # type: ignore[index]
    strategy.learn_importance(layers.values())
    assert all(torch.equal(values, before[name]) for name, values in layer.importance.smoothed.items())


class WithLoss(nn.Module):
    """A model whose output has a loss, as those have that PEFT's penalty was made for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=self.net(x).sum())


def test_the_penalty_is_pefts(base: DiffusionModels) -> None:
    strategy = AdaLoRA(**TINY, orthogonality_weight=0.3)
    models = attached(base, strategy, tiny_net())
    twin = peft_twin(models, strategy, total_step=10, tinit=1, tfinal=2, deltaT=1)
    inner, x = twin.base_model.model, torch.ones(2, 6, dtype=torch.float64)
    twin.base_model.model = WithLoss(inner)
    expected = twin.base_model(x).loss - inner(x).sum()
    penalty = strategy.penalty(models)
    assert penalty is not None
    torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=1e-12)


def test_the_penalty_is_in_the_engines_loss_and_has_a_gradient(base: DiffusionModels) -> None:
    strategy = AdaLoRA(rank=2)
    models = attached(base, strategy)
    loss = DenoisingLoss(models, penalty=lambda: strategy.penalty(models))
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    batch = {"latents": latents, "noise": noise, "timesteps": torch.tensor([10, 700])}
    batch["token_ids"] = torch.zeros(2, 77, dtype=torch.long)
    total, plain = loss(batch), DenoisingLoss(models)(batch)
    by_hand = [
        torch.linalg.norm(gram - torch.eye(3))
        for layer in layers_of(models, strategy).values()
        for gram in (layer.lora_B.T @ layer.lora_B, layer.lora_A @ layer.lora_A.T)
    ]
    torch.testing.assert_close(total - plain, 0.5 * torch.stack(by_hand).mean())
    total.backward()
    layer = layers_of(models, strategy)["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    assert layer.lora_A.grad is not None and layer.lora_A.grad.abs().sum() > 0  # E is zero: by the penalty alone
    assert AdaLoRA(rank=2, orthogonality_weight=0.0).penalty(models) is None


def test_the_penalty_keeps_full_precision_under_autocast(base: DiffusionModels) -> None:
    strategy = AdaLoRA(rank=2)
    models = attached(base, strategy)
    with torch.autocast("cpu", torch.bfloat16):
        under = strategy.penalty(models)
    assert under is not None and torch.equal(under, strategy.penalty(models))  # type: ignore[arg-type]


def pixels(models: DiffusionModels) -> np.ndarray:
    options = {"num_steps": 2, "guidance_scale": 2.0, "batch_size": 1}
    return next(generate_batches(models, ["a chest film"], [3], **options))


@pytest.fixture
def one_sided(base: DiffusionModels) -> tuple[AdaLoRA, DiffusionModels]:
    """All ranks went to one convolution of the U-Net and some linear layers; the text encoder has none."""
    strategy = AdaLoRA(rank=1, alpha=40.0, targets="linear+conv", components="unet+text_encoder")
    models = attached(base, strategy)
    layers = layers_of(models, strategy)
    with torch.no_grad():
        for layer in layers.values():
            layer.lora_E.fill_(1.0)
    chosen = ("unet.conv_in", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    for path, layer in layers.items():
        layer.keep([1] if path in chosen else [])
    return strategy, models


@pytest.mark.slow
def test_layers_and_a_component_without_rank_survive_every_export(
    base: DiffusionModels, one_sided: tuple[AdaLoRA, DiffusionModels], tmp_path: Path
) -> None:
    strategy, models = one_sided
    expected = pixels(models)
    assert np.abs(expected - pixels(base)).max() > 1e-3
    strategy.export(models, tmp_path / "adapter")
    restored = base.fresh()
    assert load_adapter(restored, tmp_path / "adapter") == strategy
    np.testing.assert_allclose(pixels(restored), expected, atol=1e-6)
    assert sum(len(layer.factors()[0]) for layer in layers_of(restored, strategy).values()) == 2
    EXPORTS["pipeline"].write(restored, strategy, tmp_path / "pipeline")
    EXPORTS["diffusers"].write(restored, strategy, tmp_path / "lora")
    merged = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", safety_checker=None)
    loaded = StableDiffusionPipeline.from_pretrained(resolve_base("mini"), safety_checker=None, dtype=torch.float32)
    loaded.scheduler = noise_scheduler_of(base.scheduler_config)
    loaded.load_lora_weights(tmp_path / "lora")
    for pipeline in (merged, loaded):
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "np"}
        images = pipeline("a chest film", generator=torch.Generator().manual_seed(3), **options).images
        np.testing.assert_allclose(images, expected, atol=1e-4)


def test_an_adapter_of_higher_rank_than_the_cards_is_refused(base: DiffusionModels, tmp_path: Path) -> None:
    models, small = attached(base, AdaLoRA(rank=4)), AdaLoRA(rank=2)
    AdaLoRA(rank=4).export(models, tmp_path)
    (tmp_path / "adapter.json").write_text(
        (tmp_path / "adapter.json").read_text().replace('"rank": 4', '"rank": 2').replace('_rank": 6', '_rank": 3')
    )
    with pytest.raises(ValueError, match=r"must have shape \(3, \d+\), but got \(6, \d+\)"):
        small.restore(base.fresh(), tmp_path)


def test_the_initial_rank_is_half_above_the_final_one() -> None:
    assert [AdaLoRA(rank=rank).initial_rank for rank in (1, 2, 5, 8)] == [2, 3, 8, 12]
    strategy = AdaLoRA(rank=3, initial_ratio=1.3, alpha=8.0)
    assert make_strategy("adalora", strategy.hyperparameters()) == strategy
    assert strategy.scale == 2.0


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"initial_ratio": 1}, "`initial_ratio` must be above 1, but got 1. Try 1.5."),
        ({"initial_ratio": "2"}, "`initial_ratio` must be a number"),
        ({"beta1": 1.0}, "`beta1` must be between 0 and 1, but got 1.0"),
        ({"beta2": "0.9"}, "`beta2` must be a number, but got '0.9'"),
        ({"orthogonality_weight": -1}, "`orthogonality_weight` must be at least 0, but got -1"),
        (
            {"initial_share": 0.5},
            "`initial_share` and `final_share` must be at least 0, and together below 1, but got 0.5",
        ),
    ],
)
def test_wrong_hyperparameters_are_answered(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as answer:
        make_strategy("adalora", hyperparameters)
    assert message in str(answer.value)
