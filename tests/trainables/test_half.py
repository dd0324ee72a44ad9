"""Frozen weights in half precision: nothing that training computes may tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.base_models.bert_layout import write_bert_layout
from trainables.base_models.models import DiffusionModels
from trainables.feeding import tokenize
from trainables.half import halve_frozen
from trainables.loss import DenoisingLoss
from trainables.strategies import COMBINATIONS, STRATEGIES, Strategy, make_strategy
from trainables.strategies.base import TrainingStep, trained_parameters


def _attached(base: DiffusionModels, name: str, folder: Path) -> tuple[Strategy, DiffusionModels]:
    """A strategy whose trained parameters have moved from where they start, so that all of them act."""
    hyperparameters: dict[str, Any] = {}
    if name == "text_encoder_swap":
        write_bert_layout(folder, hidden_size=48)
        hyperparameters = {"encoder": str(folder), "train_encoder": True}
    strategy, models = make_strategy(name, hyperparameters), base.fresh()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        strategy.attach(models)
        for _, parameter in trained_parameters(models):
            parameter += 0.01 * torch.randn_like(parameter)
    return strategy, models


def _computed(strategy: Strategy, models: DiffusionModels, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """The loss and the gradients of a batch; where BitFit or the autoencoder trains, it goes through that from the film on."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        "latents": torch.randn(2, 4, 8, 8, generator=generator),
        "noise": torch.randn(2, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([150, 600]),
        "token_ids": tokenize(models, ["chest x-ray", "edema"]),
    }
    if "vae" in strategy.trains or strategy.name == "bitfit":
        batch |= {
            "pixels": torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1,
            "latent_noise": batch.pop("latents"),
        }
    strategy.on_step_start(models, TrainingStep(number=40, num_steps=99, seed=0))
    loss = DenoisingLoss(
        models, reconstruction_weight=strategy.reconstruction_weight, penalty=lambda: strategy.penalty(models)
    )
    with torch.autocast("cpu", dtype):
        total = loss(batch)
    parameters = [parameter for _, parameter in trained_parameters(models)]
    return total, list(torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STRATEGIES, *COMBINATIONS])
def test_loss_and_gradients_stay_the_same_to_the_bit(base: DiffusionModels, tmp_path: Path, name: str) -> None:
    strategy, models = _attached(base, name, tmp_path)
    loss, gradients = _computed(strategy, models, torch.bfloat16)
    halve_frozen(models, "bf16")
    halved_loss, halved_gradients = _computed(strategy, models, torch.bfloat16)
    assert torch.equal(loss, halved_loss)
    assert all(map(torch.equal, gradients, halved_gradients))
    assert {parameter.dtype for _, parameter in trained_parameters(models)} == {torch.float32}


def test_what_autocast_casts_is_half_and_the_rest_is_not(base: DiffusionModels, tmp_path: Path) -> None:
    _, models = _attached(base, "lora", tmp_path)
    halve_frozen(models, "bf16")
    for module in models.unet.modules():
        dtypes = {parameter.dtype for parameter in module.parameters(recurse=False)}
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert dtypes == {torch.bfloat16}
        else:
            assert dtypes <= {torch.float32}
    frozen = sum(p.numel() * p.element_size() for p in models.unet.parameters() if not p.requires_grad)
    assert frozen < 0.51 * sum(p.numel() * p.element_size() for p in base.unet.parameters())
    assert {p.dtype for p in base.unet.parameters()} == {torch.float32}


def test_training_in_full_precision_keeps_all_weights_in_it(base: DiffusionModels, tmp_path: Path) -> None:
    _, models = _attached(base, "lora", tmp_path)
    halve_frozen(models, "no")
    assert {p.dtype for module in models.components().values() for p in module.parameters()} == {torch.float32}
