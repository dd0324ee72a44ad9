"""What holds for every search sampler: it works on a conditional space with several objectives, and repeats itself."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from optuna.trial import TrialState

from analysis.front.pareto import Objective
from search_spaces import SEARCH_SPACES
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

pytestmark = pytest.mark.slow

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
STRATEGIES = ("unet", "lora", "dora", "bitfit")
NUM_TRIALS = 24


def make_searcher(name: str, seed: int = 0) -> OptunaSearcher:
    return OptunaSearcher(
        SEARCH_SPACES["mini"],
        OBJECTIVES,
        sampler=SEARCH_SAMPLERS[name],
        num_trials=NUM_TRIALS,
        seed=seed,
        strategies=STRATEGIES,
    )


def take(searcher: OptunaSearcher, numbers: range) -> list[dict[str, Any]]:
    """Trials one after the other; of each five one fails and one is stopped."""
    choices = []
    for number in numbers:
        config = searcher.suggest("what Tune calls it")
        assert isinstance(config, dict)
        suggestion = Suggestion.of_config(config)
        searcher.on_start(suggestion)
        tell_result(searcher, suggestion, number)
        choices.append(dict(suggestion.choice))
    return choices


def tell_result(searcher: OptunaSearcher, suggestion: Suggestion, number: int) -> None:
    distance = abs(math.log10(suggestion.choice["lr"]) + 3)
    metrics = {"fid_mini": distance, "vendi_mini": float(suggestion.choice["batch_size"])}
    searcher.on_report(suggestion.trial_id, metrics)
    searcher.on_end(suggestion.trial_id, end_of_number(number))


def end_of_number(number: int) -> TrialEnd:
    ends = {3: TrialEnd.failed("out of memory"), 4: TrialEnd.stopped("beaten", rung=0)}
    return ends.get(number % 5, TrialEnd.completed())


@pytest.fixture(params=SEARCH_SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_seed_alone_decides(name: str) -> None:
    first, again, other = (take(make_searcher(name, seed), range(NUM_TRIALS)) for seed in (0, 0, 1))
    assert first == again != other


def test_every_strategy_comes_with_values_of_its_own(name: str) -> None:
    configs = take(make_searcher(name), range(NUM_TRIALS))
    assert {config["strategy"]["name"] for config in configs} == set(STRATEGIES)
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == NUM_TRIALS
    assert {"rank" in config["strategy"] for config in configs if config["strategy"]["name"] in ("lora", "dora")} == {
        True
    }


def test_ends_are_the_studys(name: str) -> None:
    searcher = make_searcher(name)
    take(searcher, range(10))
    states = [trial.state for trial in searcher.study.trials]
    assert states == [*[TrialState.COMPLETE] * 3, *[TrialState.PRUNED] * 2] * 2  # failed, and stopped


def test_a_search_that_hears_its_past_goes_on_as_if_never_interrupted(name: str) -> None:
    whole, first, second = (make_searcher(name) for _ in range(3))
    expected = take(whole, range(NUM_TRIALS))
    for number in range(12):
        config = first.suggest("what Tune calls it")
        assert isinstance(config, dict)
        suggestion = Suggestion.of_config(json.loads(json.dumps(config)))
        tell_result(first, suggestion, number)
        second.on_start(suggestion)
        tell_result(second, suggestion, number)
    second.resume()
    assert take(second, range(12, NUM_TRIALS)) == expected[12:]
