"""Which trainings a recording consists of."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from benchmarks.recordings.draws import STRATEGIES, Training, configurations, trainings
from search_spaces import SEARCH_SPACES
from search_spaces.ranges import RANGES, parts_of

MINI = SEARCH_SPACES["mini"]


def drawn(num_configs: int = 120, num_repeated: int = 20, seed: int = 0) -> list[Training]:
    """The trainings of a recording."""
    return trainings(MINI, STRATEGIES, num_configs=num_configs, num_repeated=num_repeated, seed=seed)


def test_the_same_seed_draws_the_same_and_more_begin_with_the_fewer() -> None:
    assert configurations(MINI, "lora", 5, 7) == configurations(MINI, "lora", 5, 7)
    assert configurations(MINI, "lora", 3, 7) == configurations(MINI, "lora", 40, 7)[:3]
    assert configurations(MINI, "lora", 3, 7) != configurations(MINI, "lora", 3, 8)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_eight_configurations_have_a_learning_rate_in_each_eighth_of_the_range(strategy: str) -> None:
    """A closed form: what is drawn lies within the range, and evenly."""
    low, high = RANGES[parts_of(strategy)[0]].lr["mini"]
    shares = [
        math.log(training.choice["lr"] / low) / math.log(high / low)
        for training in configurations(MINI, strategy, 8, 0)
    ]
    assert sorted(math.floor(8 * share) for share in shares) == list(range(8))


def test_every_choice_of_a_hyperparameter_is_drawn() -> None:
    drawn = configurations(MINI, "dylora", 16, 0)
    assert {training.choice["strategy"]["rank"] for training in drawn} == {2, 4, 8, 16, 32}
    assert Counter(training.choice["batch_size"] for training in drawn) == {16: 8, 32: 8}
    assert Counter(training.choice["strategy"]["frozen"] for training in drawn) == {False: 8, True: 8}


def test_any_beginning_has_as_many_configurations_of_each_strategy() -> None:
    singles = [training.strategy for training in drawn() if training.seed == 0]
    for length in range(len(STRATEGIES), len(singles) + 1):
        counts = Counter(singles[:length])
        assert len(counts) == len(STRATEGIES) and max(counts.values()) - min(counts.values()) <= 1


def test_twenty_configurations_of_all_strategies_have_two_further_seeds_after_half_of_the_others() -> None:
    order = drawn()
    assert len({training.name for training in order}) == len(order) == 160
    seeds = {
        config: {training.seed for training in order if training.config == config}
        for config in {training.config for training in order}
    }
    repeated = [config for config, seeds_of_config in seeds.items() if seeds_of_config == {0, 1, 2}]
    assert len(repeated) == 20 and {config.rpartition("-")[0] for config in repeated} == set(STRATEGIES)
    assert not any(training.seed for training in order[:60])
    assert 15 <= sum(training.seed > 0 for training in order[60:110]) <= 25
    first = {training.config: training for training in order if training.seed == 0}
    assert all(training.choice == first[training.config].choice for training in order)
