"""Full fine-tuning of several parts: each at its own learning rate."""

from __future__ import annotations

import pytest

from trainables.base_models.models import DiffusionModels
from trainables.strategies import make_strategy


@pytest.mark.parametrize("ratio", [0.1, 1.0, 2])
def test_each_part_has_its_own_learning_rate(base: DiffusionModels, ratio: float) -> None:
    models, strategy = base.fresh(), make_strategy("unet+text_encoder", {"text_encoder.lr_ratio": ratio})
    strategy.attach(models)
    groups = strategy.param_groups(models, 1e-5)
    assert [group["lr"] for group in groups] == pytest.approx([1e-5, 1e-5 * ratio])
    for group, component in zip(groups, (models.unet, models.text_encoder), strict=True):
        assert {id(parameter) for parameter in group["params"]} == {
            id(parameter) for parameter in component.parameters()
        }
