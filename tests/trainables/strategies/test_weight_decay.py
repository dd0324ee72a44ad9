"""Weight decay: what it does not pull."""

from __future__ import annotations

import pytest
import torch

from trainables.base_models.models import DiffusionModels
from trainables.strategies import STRATEGIES, make_strategy
from trainables.strategies.base import trained_parameters

SCALES = {"dora": "lora_magnitude_vector", "norm": "weight", "difffit": "weight"}
"""The trained scales by the last part of their paths; of DiffFit those of the norms, its gammas have a test."""
WITHOUT_SCALES = (
    *("unet", "text_encoder", "vae", "text_encoder_swap", "attention", "bitfit", "delta_full"),
    *("lora", "adalora", "dylora", "nested_lora", "selora", "textual_inversion"),
)
"""Strategies that train weights, shifts, updates or embeddings. A base's norms decay where they train with all its weights."""


def test_of_every_strategy_it_is_known_whether_it_trains_scales() -> None:
    left = [name for name in STRATEGIES if name not in {*SCALES, *WITHOUT_SCALES}]
    assert not left, (
        f"Weight decay pulls what multiplies weights to zero. If {left} train such, add them to SCALES here, and have their "
        f"`param_groups` leave it undecayed by `groups_by_decay`; else add them to WITHOUT_SCALES."
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALES)
def test_weight_decay_does_not_pull_scales(base: DiffusionModels, name: str) -> None:
    """Without gradients AdamW only decays: p <- p (1 - lr * decay), with each part's share of lr."""
    strategy, models = make_strategy(f"{name}+text_encoder", {f"{name}.lr_ratio": 0.5}), base.fresh()
    strategy.attach(models)
    with torch.no_grad():
        for _, parameter in trained_parameters(models):
            parameter.add_(0.1)
    before = {path: parameter.detach().clone() for path, parameter in trained_parameters(models)}
    optimizer = torch.optim.AdamW(strategy.param_groups(models, 1e-2), weight_decay=0.5)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"] == 5e-3
    for _, parameter in trained_parameters(models):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    num_scales = 0
    for path, parameter in trained_parameters(models):
        leaf = path.rpartition(".")[2]
        is_scale = path.startswith("unet.") and (leaf == SCALES[name] or leaf.startswith("gamma"))
        num_scales += is_scale
        lr = 5e-3 if path.startswith("unet.") else 1e-3
        torch.testing.assert_close(parameter, before[path] * (1.0 if is_scale else 1 - lr * 0.5), msg=path)
    assert 0 < num_scales < len(before)
