"""Nested LoRA: each image is trained at one rank, a batch at all of them, and every cut is a part of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.base_models.models import DiffusionModels
from trainables.batches import BatchPlan
from trainables.feeding import tokenize
from trainables.loss import DenoisingLoss
from trainables.strategies import load_adapter, make_strategy
from trainables.strategies.base import TrainingStep, trained_parameters
from trainables.strategies.low_rank import LowRankLayer
from trainables.strategies.nested_lora import NestedLayer, NestedLoRA, dealt_ranks

IN, OUT, RANK, SCALE = 5, 7, 4, 1.5
RANKS = (1, 2, 4)
KINDS = {
    "linear": (lambda: nn.Linear(IN, OUT, dtype=torch.float64), (3, 6, IN)),
    "convolution": (lambda: nn.Conv2d(IN, OUT, 3, padding=1, dtype=torch.float64), (3, IN, 6, 6)),
}


def adapted(kind: str) -> tuple[NestedLayer, Tensor]:
    """A layer whose factors have left their initial values, and an input of as many images as there are ranks."""
    make, shape = KINDS[kind]
    torch.manual_seed(0)
    layer = NestedLayer(make().requires_grad_(False), RANK, SCALE).double()
    nn.init.normal_(layer.lora_B)
    layer.acting = (torch.arange(RANK) < torch.tensor(RANKS)[:, None]).float()
    return layer, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def lora_of(layer: LowRankLayer, rank: int) -> LowRankLayer:
    """Plain LoRA with the first rows and columns."""
    lora = LowRankLayer(layer.base, rank, SCALE).double()
    lora.lora_A.data = layer.lora_A.detach()[:rank].clone()
    lora.lora_B.data = layer.lora_B.detach()[:, :rank].clone()
    return lora


def padded(gradient: Tensor, dim: int) -> Tensor:
    """With zeros for the rows that a smaller rank has not."""
    shape = list(gradient.shape)
    shape[dim] = RANK - shape[dim]
    return torch.cat([gradient, gradient.new_zeros(shape)], dim=dim)


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_passes_lora_of_its_rank_and_gradients_add_up(kind: str) -> None:
    layer, x = adapted(kind)
    output = layer(x)
    towards = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    ours = torch.autograd.grad((output * towards).sum(), [layer.lora_A, layer.lora_B, x])
    expected = [torch.zeros_like(gradient) for gradient in ours]
    for image, rank in enumerate(RANKS):
        lora, image_x = lora_of(layer, rank), x.detach()[image : image + 1].clone().requires_grad_(True)
        alone = lora(image_x)
        torch.testing.assert_close(output[image : image + 1], alone, rtol=1e-12, atol=1e-12)
        a, b, own_gradient = torch.autograd.grad((alone * towards[image]).sum(), [lora.lora_A, lora.lora_B, image_x])
        expected[0] += padded(a, 0)
        expected[1] += padded(b, 1)
        expected[2][image] += own_gradient[0]
    torch.testing.assert_close(list(ours), expected, rtol=1e-10, atol=1e-10)


def batch_of(models: DiffusionModels, copies: int) -> dict[str, Tensor]:
    """Two images with their noise, each as often as it is asked for."""
    drawn = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 16, 16, generator=drawn) for _ in range(2))
    ids = tokenize(models, ["a blue ring", "a chest film with edema"])
    batch = {"latents": latents, "noise": noise, "timesteps": torch.tensor([150, 600]), "token_ids": ids}
    return {name: value.repeat_interleave(copies, 0) for name, value in batch.items()}


def gradients(models: DiffusionModels, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    loss = DenoisingLoss(models)(batch)
    loss.backward()
    return loss.item(), {
        path: parameter.grad for path, parameter in trained_parameters(models) if parameter.grad is not None
    }


def attached(base: DiffusionModels, strategy: NestedLoRA) -> DiffusionModels:
    """A base whose factors have left their initial values."""
    models = base.fresh()
    torch.manual_seed(0)
    strategy.attach(models)
    for layer in strategy.nested_layers(models):
        nn.init.normal_(layer.lora_B, std=0.1)
    return models


@pytest.mark.slow
def test_the_nested_loss_is_the_mean_of_the_ranks_losses(base: DiffusionModels, tmp_path: Path) -> None:
    """Through the whole U-Net and text encoder: against each rank's adapter by itself, exported and loaded again."""
    strategy = NestedLoRA(rank=RANK, alpha=4.0, targets="linear+conv", components="unet+text_encoder")
    models = attached(base, strategy)
    strategy.on_batch(models, np.arange(2 * len(RANKS)))
    loss, ours = gradients(models, batch_of(models, len(RANKS)))
    strategy.on_step_end(models, TrainingStep(number=0, num_steps=1, seed=0))
    expected, losses = {path: torch.zeros_like(gradient) for path, gradient in ours.items()}, []
    for label, cut in {**strategy.cuts(), "whole": strategy}.items():
        cut.export(models, tmp_path / label)
        alone = base.fresh()
        assert load_adapter(alone, tmp_path / label) == cut
        own_loss, cut_gradients = gradients(alone, batch_of(alone, 1))
        losses.append(own_loss)
        for path, gradient in cut_gradients.items():
            expected[path] += padded(gradient, 0 if path.endswith("lora_A") else 1) / len(RANKS)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5) and max(losses) - min(losses) > 1e-4
    for path, gradient in expected.items():
        assert (ours[path] - gradient).norm() < 1e-3 * gradient.norm() + 1e-6, path


@pytest.mark.slow
def test_a_cut_is_the_truncated_product(base: DiffusionModels, tmp_path: Path) -> None:
    strategy = NestedLoRA(rank=RANK, alpha=6.0)
    models = attached(base, strategy)
    assert list(strategy.cuts()) == ["rank1", "rank2"]
    for rank, (label, cut) in zip((1, 2), strategy.cuts().items(), strict=True):
        assert cut.hyperparameters()["alpha"] == 6.0 * rank / RANK and not cut.cuts()
        assert cut.num_parameters(models) == strategy.num_parameters(models) * rank // RANK
        assert set(cut.ranks(models).values()) == {rank}
        cut.export(models, tmp_path / label)
        restored = base.fresh()
        loaded = load_adapter(restored, tmp_path / label)
        assert isinstance(loaded, NestedLoRA)
        for path, layer in strategy.layers(models).items():
            product = 6.0 / RANK * layer.lora_B[:, :rank] @ layer.lora_A[:rank]
            torch.testing.assert_close(loaded.layers(restored)[path].weight(), layer.base.weight + product)


def test_any_images_in_a_row_are_dealt_all_ranks_in_turn() -> None:
    dealt = dealt_ranks((1, 2, 8), np.arange(5, 17))
    assert all(sorted(dealt[place : place + 3]) == [1, 2, 8] for place in range(10))
    parts = [dealt_ranks((1, 2, 8), np.arange(first, first + 4)) for first in (5, 9, 13)]
    np.testing.assert_array_equal(np.concatenate(parts), dealt)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_workers_number_the_images_of_a_batch_as_one_would(num_workers: int) -> None:
    plan = BatchPlan(num_images=11, batch_size=4, num_workers=num_workers)
    alone = [share.indices for share in BatchPlan(num_images=11, batch_size=4).epoch(0, 0)]
    for worker in range(num_workers):
        for batch, share in zip(alone, plan.epoch(0, worker), strict=True):
            if share.weight:
                np.testing.assert_array_equal(batch[share.first : share.first + len(share.indices)], share.indices)


def tiny(base: DiffusionModels, name: str, hyperparameters: dict[str, Any]) -> list[Tensor]:
    """The factors of a small network after some steps on six images."""
    strategy, models = make_strategy(name, {"rank": 4, "targets": "all_linear", **hyperparameters}), base.fresh()
    torch.manual_seed(0)
    models.unet = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    strategy.attach(models)
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2))
    for number in range(5):
        step = TrainingStep(number=number, num_steps=5, seed=0)
        strategy.on_step_start(models, step)
        strategy.on_batch(models, np.arange(6 * number, 6 * number + 6))
        models.unet(torch.arange(24.0).view(6, 4) / 24).square().sum().backward()
        optimizer.step()
        strategy.on_step_end(models, step)
        optimizer.zero_grad()
    return [parameter.detach() for _, parameter in trained_parameters(models)]


@pytest.mark.slow
def test_without_smaller_ranks_it_is_lora_to_the_bit(base: DiffusionModels) -> None:
    lora, alone = tiny(base, "lora", {}), tiny(base, "nested_lora", {"evaluated_ranks": [4, 9]})
    assert all(torch.equal(first, other) for first, other in zip(lora, alone, strict=True))
    assert not torch.equal(lora[0], tiny(base, "nested_lora", {})[0])


@pytest.mark.slow
def test_every_rank_comes_to_its_own_best() -> None:
    """Trained on a linear map, each rank errs as its truncated singular value decomposition does (Eckart and Young)."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0] for _ in range(2))
    values = 2 * 0.6 ** torch.arange(8, dtype=torch.float64)
    goal = left * values @ right.T
    base = nn.Linear(8, 8, bias=False, dtype=torch.float64).requires_grad_(False)
    nn.init.zeros_(base.weight)
    layer = NestedLayer(base, RANK, 1.0).double()
    layer.acting = (torch.arange(RANK) < torch.tensor(RANKS)[:, None]).double()
    inputs = torch.eye(8, dtype=torch.float64).expand(len(RANKS), 8, 8)  # in each rank's turn all unit vectors
    optimizer = torch.optim.Adam([layer.lora_A, layer.lora_B], lr=0.02)
    for _ in range(800):
        optimizer.zero_grad()
        (layer(inputs) - goal.T).square().sum().backward()
        optimizer.step()
    for rank in RANKS:
        error = (goal - layer.lora_B[:, :rank] @ layer.lora_A[:rank]).square().sum()
        assert error.item() == pytest.approx((values[rank:] ** 2).sum().item(), rel=0.01)


def test_after_a_step_the_whole_rank_acts(base: DiffusionModels) -> None:
    strategy = NestedLoRA(rank=RANK)
    models = attached(base, strategy)
    strategy.on_batch(models, np.arange(3))
    assert {
        tuple(layer.acting.sum(1).tolist()) for layer in strategy.nested_layers(models) if layer.acting is not None
    } == {(1.0, 2.0, 4.0)}
    assert strategy.on_step_end(models, TrainingStep(number=0, num_steps=1, seed=0)) is None
    assert all(layer.acting is None for layer in strategy.nested_layers(models))


def test_ranks_that_cannot_be_trained_are_refused() -> None:
    with pytest.raises(ValueError, match="`evaluated_ranks` must be whole numbers, at least 1, but got"):
        make_strategy("nested_lora", {"evaluated_ranks": [0]})
