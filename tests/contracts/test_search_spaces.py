"""What every search space keeps."""

from __future__ import annotations

import pickle

import optuna
import pytest

from search_spaces import SEARCH_SPACES, SearchSpace, strategies_of
from trainables.strategies import COMBINATIONS, STRATEGIES, make_strategy

pytestmark = pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)


def sampled(seed: int, number: int = 200) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(number)]


def test_plain_pickle_carries_it(space: SearchSpace) -> None:
    assert pickle.loads(pickle.dumps(space)) is space


def test_it_is_a_function_of_the_trial_alone(space: SearchSpace) -> None:
    suggested = [space(trial) for trial in sampled(seed=3)]
    assert suggested == [space(trial) for trial in sampled(seed=3)]
    assert suggested != [space(trial) for trial in sampled(seed=4)]


def test_every_strategy_is_suggested_and_takes_its_fields(space: SearchSpace) -> None:
    suggested = [space(trial)["strategy"] for trial in sampled(seed=0)]
    assert (
        {fields["name"] for fields in suggested} == set(strategies_of(space)) <= STRATEGIES.keys() | COMBINATIONS.keys()
    )
    for fields in suggested:
        own = {name: value for name, value in fields.items() if name != "name"}
        assert own.items() <= make_strategy(fields["name"], own).hyperparameters().items()


def test_the_choice_of_strategies_can_be_narrowed(space: SearchSpace) -> None:
    for name in strategies_of(space):
        trial = sampled(seed=1, number=1)[0]
        assert space(trial, strategies=(name,))["strategy"]["name"] == name


def test_each_strategys_parameters_carry_its_name(space: SearchSpace) -> None:
    for trial in sampled(seed=5):
        name = space(trial)["strategy"]["name"]
        own = set(trial.params) - {"strategy", "batch_size"}
        assert f"{name}/lr" in own
        assert all(parameter.startswith(f"{name}/") for parameter in own)


def test_what_is_shared_is_positive(space: SearchSpace) -> None:
    for trial in sampled(seed=6):
        choice = space(trial)
        assert choice.keys() == {"strategy", "lr", "batch_size"}
        assert choice["lr"] > 0
        assert choice["batch_size"] >= 1
