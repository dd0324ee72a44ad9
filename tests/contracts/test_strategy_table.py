"""The table of strategies, without a training."""

from __future__ import annotations

import pytest
from strategy_examples import EXAMPLES

from trainables.strategies import COMBINATIONS, STRATEGIES, make_strategy


def test_every_strategy_is_in_the_suite() -> None:
    shown = {example.strategy or name for name, example in EXAMPLES.items()}
    assert shown >= STRATEGIES.keys() | COMBINATIONS.keys()
    assert all(strategy.name == name for name, strategy in STRATEGIES.items())


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_decides_its_size_is_a_hyperparameter_that_takes_the_values_shown(name: str) -> None:
    for key, values in STRATEGIES[name].sized.items():
        assert [make_strategy(name, {key: value}).hyperparameters()[key] for value in values] == list(values)
