"""Operations of a training image: a second count by layer on a real model, and what must not change them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from trainables.base_models.models import DiffusionModels, load_base
from trainables.base_models.shapes import base_on_meta
from trainables.loss import DenoisingLoss
from trainables.strategies import make_strategy
from trainables.strategies.operations import operations_per_image

pytestmark = pytest.mark.slow


@cache
def counted(name: str, cached: bool = True, **hyperparameters: Any) -> int:
    models, strategy = base_on_meta("mini"), make_strategy(name, hyperparameters)
    strategy.attach(models)
    return operations_per_image(models, strategy, cached=cached)


class LayerCount:
    """Adds up layers as they run: a product forward, one more for the weight's gradient, one more for the input's.

    Attention has two products forward, two backward for the queries, and two for keys and values where these need gradients.
    """

    def __init__(self, module: nn.Module) -> None:
        self.total = 0
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.register_forward_hook(self._layer)
            elif hasattr(layer, "to_q"):
                layer.register_forward_hook(self._attention, with_kwargs=True)

    def _layer(self, layer: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        times = 1 + int(layer.weight.requires_grad) + int(given[0].requires_grad)
        per_output = layer.weight[0].numel()
        self.total += times * 2 * output.numel() * per_output

    def _attention(
        self, layer: Any, given: tuple[torch.Tensor, ...], named: dict[str, Any], output: torch.Tensor
    ) -> None:
        states = given[0] if given else named["hidden_states"]
        queries = states.shape[1] if states.ndim == 3 else states.shape[2] * states.shape[3]
        others = named.get("encoder_hidden_states")
        keys = queries if others is None else others.shape[1]
        to_keys = others is None or others.requires_grad or layer.to_k.weight.requires_grad
        self.total += (3 if to_keys else 2) * 4 * queries * keys * layer.to_q.out_features


def by_layers(models: DiffusionModels) -> int:
    count, unet = LayerCount(models.unet), models.unet
    size = unet.config.sample_size
    latents = torch.randn(1, unet.config.in_channels, size, size)
    states = torch.randn(1, models.tokenizer.model_max_length, unet.config.cross_attention_dim)
    batch = {"latents": latents, "noise": latents, "timesteps": torch.tensor([3]), "prompt_states": states}
    DenoisingLoss(models)(batch)
    return count.total


@pytest.mark.parametrize("name", ["unet", "bitfit"])
def test_agrees_with_a_count_by_layers(name: str) -> None:
    models, strategy = load_base("mini"), make_strategy(name, {})
    strategy.attach(models)
    assert counted(name) == by_layers(models)


@pytest.mark.parametrize("name", ["dora", "adalora", "selora", "textual_inversion"])
def test_layers_with_passes_of_their_own_are_counted_on_shapes_too(name: str) -> None:
    """What they add to the frozen U-Net's pass costs something, and less than training it."""
    assert counted("norm") * 0.95 < counted(name) < counted("unet")


def test_what_trains_more_costs_more_and_half_of_the_gradients_cost_two_thirds() -> None:
    full, bias = counted("unet"), counted("bitfit")
    assert 0.6 * full < bias < 0.75 * full
    assert counted("lora", rank=2) < counted("lora", rank=32) < full
    assert counted("lora", rank=4, alpha=8) == counted("lora", rank=4, alpha=16)
    assert counted("bitfit", cached=False) > bias
    assert counted("unet+text_encoder") > full
    assert counted("vae") > bias
