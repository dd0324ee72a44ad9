"""Combinations: each part with its own learning rate, hyperparameters and weight in the loss."""

from __future__ import annotations

import pytest

from trainables.base_models.models import DiffusionModels
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters


@pytest.mark.slow
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


def test_parts_keep_their_hyperparameters_and_default_rates() -> None:
    strategy = make_strategy("dora+vae+text_encoder", {"dora.rank": 3, "vae.reconstruction_weight": 0.5})
    again = make_strategy(strategy.name, strategy.hyperparameters())
    assert again == strategy
    assert strategy.hyperparameters() == {
        "dora.rank": 3,
        "dora.alpha": 16.0,
        "dora.targets": "attention",
        "dora.components": "unet",
        "dora.lr_ratio": 1.0,
        "vae.reconstruction_weight": 0.5,
        "vae.lr_ratio": 0.1,
        "text_encoder.lr_ratio": 0.1,
    }
    assert strategy.trains == ("unet", "vae", "text_encoder")
    assert strategy.reconstruction_weight == 0.5


@pytest.mark.slow
def test_a_combination_trains_what_its_parts_train_apart(base: DiffusionModels) -> None:
    together, hyperparameters = base.fresh(), {"lora.rank": 2}
    make_strategy("lora+text_encoder", hyperparameters).attach(together)
    apart = set()
    for name, values in (("lora", {"rank": 2}), ("text_encoder", {})):
        models, strategy = base.fresh(), make_strategy(name, values)
        strategy.attach(models)
        apart |= {path for path, _ in strategy.trained(models)}
    assert {path for path, _ in trained_parameters(together)} == apart


def test_all_is_the_three_parts(base: DiffusionModels) -> None:
    models = base.fresh()
    make_strategy("all", {}).attach(models)
    assert all(parameter.requires_grad for module in models.components().values() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "ratios"),
    [("all", (1.0, 0.1, 0.1)), ("vae+text_encoder", (1.0, 1.0)), ("lora+textual_inversion", (1.0, 10.0))],
)
def test_a_part_trains_at_the_trials_rate_or_above(name: str, ratios: tuple[float, ...]) -> None:
    hyperparameters = make_strategy(name, {}).hyperparameters()
    assert tuple(value for key, value in hyperparameters.items() if key.endswith(".lr_ratio")) == pytest.approx(ratios)
