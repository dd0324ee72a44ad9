"""Maps of words: whatever a strategy puts into the U-Net, its films keep their bits, and attention adds up to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategy_examples import EXAMPLES

from trainables.base_models.models import DiffusionModels, load_base
from trainables.sampling import generate_batches
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters
from trainables.word_maps import AttentionRecorder, phrase_tokens

PROMPT = "a chest film with edema"
OPTIONS = {"num_steps": 1, "guidance_scale": 2.0, "batch_size": 1}


@pytest.fixture(scope="module")
def base() -> DiffusionModels:
    return load_base("mini")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_maps_of_an_adapted_model(base: DiffusionModels, name: str) -> None:
    example, models = EXAMPLES[name], base.sharing()
    make_strategy(example.strategy or name, example.hyperparameters).attach(models)
    for _, parameter in trained_parameters(models):
        parameter.data = parameter.data + 0.02 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(0)
        )
    films = next(generate_batches(models, [PROMPT], [3], **OPTIONS))
    with AttentionRecorder(models.unet, side=16, is_guided=True) as recorder:
        again = next(generate_batches(models, [PROMPT], [3], **OPTIONS))
        paid = recorder.take()
    assert torch.equal(films, again)
    assert paid.shape == (1, models.tokenizer.model_max_length, 16, 16)
    np.testing.assert_allclose(paid.sum(dim=1).mean(), 1.0, atol=2e-3)  # but for bicubic overshoot that is cut off
    assert phrase_tokens(models, PROMPT, "edema")
