"""DyLoRA: what a step trains, what it leaves alone, and the adapters that are cut out of one training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.sampling import generate_batches
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.base import TrainingStep
from trainables.strategies.dylora import DyLoRA, DyLoRALayer, drawn_rank
from trainables.strategies.low_rank import LowRankLayer

IN, OUT, RANK, ALPHA = 5, 7, 4, 6.0
KINDS = {
    "linear": (lambda: nn.Linear(IN, OUT, dtype=torch.float64), (3, IN)),
    "convolution": (lambda: nn.Conv2d(IN, OUT, 3, padding=1, dtype=torch.float64), (3, IN, 6, 6)),
}


def adapted(kind: str) -> tuple[DyLoRALayer, Tensor]:
    """A layer whose factors have left their initial values, and an input."""
    make, shape = KINDS[kind]
    torch.manual_seed(0)
    layer = DyLoRALayer(make().requires_grad_(False), RANK, ALPHA / RANK).double()
    nn.init.normal_(layer.lora_B)
    return layer, torch.randn(shape, dtype=torch.float64)


def lora_of(layer: DyLoRALayer, rank: int) -> LowRankLayer:
    """Plain LoRA with the first rows and columns."""
    lora = LowRankLayer(layer.base, rank, ALPHA / rank).double()
    lora.lora_A.data = layer.lora_A.detach()[:rank].clone()
    lora.lora_B.data = layer.lora_B.detach()[:, :rank].clone()
    return lora


def gradients(layer: LowRankLayer, x: Tensor) -> list[Tensor]:
    output = layer(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), [layer.lora_A, layer.lora_B]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 3, RANK])
def test_at_each_rank_it_is_lora_with_the_first_rows(kind: str, rank: int) -> None:
    layer, x = adapted(kind)
    lora = lora_of(layer, rank)
    layer.begin(rank, ALPHA / rank, is_frozen=False)
    torch.testing.assert_close(layer(x), lora(x), rtol=1e-12, atol=1e-12)
    ours, expected = gradients(layer, x), gradients(lora, x)
    torch.testing.assert_close(ours[0][:rank], expected[0])
    torch.testing.assert_close(ours[1][:, :rank], expected[1])
    assert ours[0][rank:].abs().sum() == ours[1][:, rank:].abs().sum() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 3, RANK])
def test_frozen_trains_the_last_row_alone(kind: str, rank: int) -> None:
    layer, x = adapted(kind)
    lora = lora_of(layer, rank)
    layer.begin(rank, ALPHA / rank, is_frozen=True)
    torch.testing.assert_close(layer(x), lora(x), rtol=1e-12, atol=1e-12)
    ours, expected = gradients(layer, x), gradients(lora, x)
    torch.testing.assert_close(ours[0][rank - 1], expected[0][rank - 1])
    torch.testing.assert_close(ours[1][:, rank - 1], expected[1][:, rank - 1])
    for gradient in (ours[0], ours[1].T):
        assert gradient[rank - 1].abs().sum() > 0
        assert gradient[torch.arange(RANK) != rank - 1].abs().sum() == 0


def test_out_of_steps_the_whole_rank_acts() -> None:
    layer, x = adapted("linear")
    lora = lora_of(layer, RANK)
    layer.begin(2, ALPHA / 2, is_frozen=True)
    layer.end(ALPHA / RANK)
    torch.testing.assert_close(layer(x), lora(x), rtol=1e-12, atol=1e-12)


def on_tiny(base: DiffusionModels, strategy: DyLoRA) -> DiffusionModels:
    models = base.fresh()
    models.unet = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    torch.manual_seed(0)
    strategy.attach(models)
    return models


def rows(layer: DyLoRALayer) -> list[Tensor]:
    """Each row of A with its column of B."""
    return [torch.cat([layer.lora_A[row], layer.lora_B[:, row]]).detach().clone() for row in range(layer.rank)]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_a_step_moves_what_it_trains_and_nothing_else(base: DiffusionModels, frozen: bool) -> None:
    """With momentum from earlier steps and with weight decay, either of which moves rows that have no gradient."""
    strategy = DyLoRA(rank=RANK, targets="all_linear", frozen=frozen)
    models = on_tiny(base, strategy)
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2), weight_decay=0.1)
    drawn_ranks = set()
    for number in range(40):
        step = TrainingStep(number=number, num_steps=40, seed=0)
        before = [rows(layer) for layer in strategy.dynamic_layers(models)]
        strategy.on_step_start(models, step)
        models.unet(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        assert strategy.on_step_end(models, step) is None
        optimizer.zero_grad()
        drawn = drawn_rank(step, RANK)
        trained = range(drawn - 1, drawn) if frozen else range(drawn)
        for layer, old in zip(strategy.dynamic_layers(models), before, strict=True):
            moved = [row for row, value in enumerate(rows(layer)) if not torch.equal(value, old[row])]
            assert moved == list(trained)
        drawn_ranks.add(drawn)
    assert drawn_ranks == {1, 2, 3, 4}


@pytest.mark.slow
def test_ranks_are_drawn_evenly_and_by_seed_and_step_alone() -> None:
    steps = [TrainingStep(number=number, num_steps=8000, seed=11) for number in range(8000)]
    drawn = [drawn_rank(step, 8) for step in steps]
    counts = np.bincount(drawn, minlength=9)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 5 * np.sqrt(1000 * 7 / 8)
    assert drawn == [drawn_rank(step, 8) for step in steps]
    assert drawn != [drawn_rank(TrainingStep(number=n, num_steps=8000, seed=12), 8) for n in range(8000)]


def test_all_layers_of_all_components_draw_the_same(base: DiffusionModels) -> None:
    strategy, models = DyLoRA(rank=8, components="unet+text_encoder"), base.fresh()
    strategy.attach(models)
    for number in range(5):
        step = TrainingStep(number=number, num_steps=5, seed=3)
        strategy.on_step_start(models, step)
        layers = strategy.dynamic_layers(models)
        assert {layer.active for layer in layers} == {drawn_rank(step, 8)}
        assert {layer.scale for layer in layers} == {16.0 / drawn_rank(step, 8)}
        strategy.on_step_end(models, step)


def pixels(models: DiffusionModels) -> Any:
    options = {"num_steps": 2, "guidance_scale": 2.0, "batch_size": 1}
    return next(generate_batches(models, ["a chest film"], [3], **options))


@pytest.fixture(scope="module")
def trained(base: DiffusionModels) -> tuple[DyLoRA, DiffusionModels]:
    strategy, models = DyLoRA(rank=4, alpha=8.0), base.fresh()
    torch.manual_seed(0)
    strategy.attach(models)
    for layer in strategy.dynamic_layers(models):
        nn.init.normal_(layer.lora_B, std=0.3)
    return strategy, models


@pytest.mark.slow
def test_a_cut_is_the_trained_model_with_its_first_rows(
    trained: tuple[DyLoRA, DiffusionModels], base: DiffusionModels, tmp_path: Path
) -> None:
    strategy, models = trained
    full = pixels(models)
    cuts = strategy.cuts()
    assert list(cuts) == ["rank1", "rank2"]
    for (label, cut), rank in zip(cuts.items(), (1, 2), strict=True):
        cut.export(models, tmp_path / label)
        assert cut.num_parameters(models) == strategy.num_parameters(models) * rank // 4
        restored = base.fresh()
        assert load_adapter(restored, tmp_path / label) == cut
        for layer in strategy.dynamic_layers(models):
            layer.begin(rank, strategy.alpha / rank, is_frozen=False)
        expected = pixels(models)
        for layer in strategy.dynamic_layers(models):
            layer.end(strategy.scale)
        np.testing.assert_allclose(pixels(restored), expected, atol=1e-6)
        assert np.abs(expected - full).max() > 1e-3
    assert np.array_equal(pixels(models), full)


@pytest.mark.parametrize(
    ("rank", "ranks", "expected"),
    [
        (8, None, [1, 2, 4]),
        (9, None, [1, 2, 4, 8]),
        (1, None, []),
        (8, [6, 3, 3, 8], [3, 6]),
        (8, [16, 2], [2]),
        (8, [], []),
    ],
)
def test_cuts_are_made_at_the_evaluated_ranks_below_the_whole(
    rank: int, ranks: list[int] | None, expected: list[int]
) -> None:
    strategy = make_strategy("dylora", {"rank": rank, "evaluated_ranks": ranks})
    assert make_strategy("dylora", strategy.hyperparameters()) == strategy
    cuts = strategy.cuts()
    assert list(cuts) == [f"rank{below}" for below in expected]
    assert [cut.hyperparameters()["rank"] for cut in cuts.values()] == expected
    assert all(not cut.cuts() for cut in cuts.values())
    assert strategy.names_its_cuts is (ranks is not None)


def test_a_combination_has_its_parts_cuts() -> None:
    strategy = make_strategy("dylora+text_encoder", {"dylora.rank": 4})
    cuts = strategy.cuts()
    assert list(cuts) == ["rank1", "rank2"]
    changed = {"dylora.rank": 2, "dylora.evaluated_ranks": ()}
    assert cuts["rank2"].hyperparameters() == strategy.hyperparameters() | changed
    named = make_strategy("dylora+text_encoder", {"dylora.rank": 4, "dylora.evaluated_ranks": [1]})
    assert named.names_its_cuts and not strategy.names_its_cuts


@pytest.mark.parametrize("ranks", [[0], [2.0], "12", 3, [True]])
def test_ranks_that_cannot_be_cut_are_refused(ranks: object) -> None:
    with pytest.raises(ValueError, match="`evaluated_ranks` must be whole numbers, at least 1, but got"):
        make_strategy("dylora", {"rank": 8, "evaluated_ranks": ranks})


def test_frozen_is_true_or_false() -> None:
    with pytest.raises(ValueError, match="`frozen` must be true or false, but got 1"):
        make_strategy("dylora", {"frozen": 1})
