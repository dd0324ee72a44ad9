"""Known costs and limits: counted as a trial counts, rejected before a place is taken, refused where none fits."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState
from test_searcher import FOUR, complete, make_searcher, run_alone, suggested

from search_spaces import SEARCH_SPACES, strategies_of
from sweep.search.costs import KnownCosts, Limits, strategies_within
from trainables.base_models.shapes import base_on_meta

CONDITIONS = ("Edema", "No Finding")


@pytest.fixture(scope="module")
def costs() -> KnownCosts:
    return KnownCosts(fresh=lambda: base_on_meta("mini"), conditions=CONDITIONS)


@pytest.mark.slow
def test_costs_are_those_of_the_shapes(costs: KnownCosts) -> None:
    lora = {"strategy": {"name": "lora", "rank": 4, "alpha": 8}, "lr": 1e-3, "batch_size": 16}
    known = costs.of(lora)
    assert known["trainable_parameters"] == 35_840
    assert 0.13 < known["adapter_mib"] < 0.16
    assert known["operations_per_image"] > 1e8
    assert costs.of({**lora, "lr": 1.0}) is known


def test_shapes_do_not_depend_on_learning_rates_and_are_counted_once(costs: KnownCosts) -> None:
    """A combination's ratios are another for every configuration, of which a search looks at dozens for each trial."""
    both = {"name": "lora+text_encoder", "lora.rank": 4, "lora.alpha": 8, "lora.lr_ratio": 1.0}
    first, second = (
        costs.of({"strategy": {**both, "text_encoder.lr_ratio": ratio}}, operations=False) for ratio in (0.1, 0.2)
    )
    assert first is second


@pytest.mark.slow
def test_nothing_over_a_limit_takes_a_place_and_optuna_is_told(costs: KnownCosts) -> None:
    limits = Limits(bounds={"trainable_parameters": 40_000.0}, costs=costs)
    searcher = make_searcher(num_trials=10, strategies=("lora", "dora", "bitfit"), excess=limits.excess)
    choices = run_alone(searcher)
    assert len(choices) == 10
    assert [choice["strategy"]["name"] for choice in choices[:3]] == ["lora", "dora", "bitfit"]
    assert all(costs.of(choice, operations=False)["trainable_parameters"] <= 40_000 for choice in choices)
    over = [trial for trial in searcher.study.trials if trial.state == TrialState.PRUNED]
    assert over and all(trial.constraints["trainable_parameters"] > 0 for trial in over)
    assert not any(trial.constraints for trial in searcher.study.trials if trial not in over)


@pytest.mark.slow
def test_a_searcher_that_goes_on_knows_what_was_rejected(costs: KnownCosts) -> None:
    limits = Limits(bounds={"trainable_parameters": 40_000.0}, costs=costs)
    whole, broken, second = (
        make_searcher(num_trials=9, strategies=("lora", "dora"), excess=limits.excess, seed=2) for _ in range(3)
    )
    wanted = run_alone(whole)
    begun = [suggested(broken) for _ in range(1)]
    for suggestion in begun:
        second.on_start(suggestion)
        complete(second, suggestion)
    assert [dict(suggestion.choice) for suggestion in begun] + run_alone(second) == wanted
    assert [trial.params for trial in second.study.trials] == [trial.params for trial in whole.study.trials]


def test_without_limits_nothing_changes_and_nothing_is_counted() -> None:
    def never() -> None:
        raise AssertionError

    limits = Limits(bounds={}, costs=KnownCosts(fresh=never, conditions=CONDITIONS))  # type: ignore[arg-type]
    assert run_alone(make_searcher(excess=limits.excess)) == run_alone(make_searcher())
    assert strategies_within(limits, SEARCH_SPACES["mini"], FOUR, {}) == (FOUR, {})


def test_operations_are_counted_only_where_they_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time, and the sweep waits for them at every suggestion."""
    monkeypatch.setattr("sweep.search.costs.operations_per_image", lambda models, strategy, cached: 8)
    costs = KnownCosts(fresh=lambda: base_on_meta("mini"), conditions=CONDITIONS)
    bitfit = {"strategy": {"name": "bitfit"}}
    assert Limits(bounds={"operations_per_image": 4.0}, costs=costs).excess(bitfit) == {"operations_per_image": 1.0}
    monkeypatch.delattr("sweep.search.costs.operations_per_image")
    assert Limits(bounds={"trainable_parameters": 15_076.0}, costs=costs).excess(bitfit) == {
        "trainable_parameters": 0.0
    }


@pytest.mark.slow
def test_strategies_that_cannot_meet_a_limit_are_named_with_the_arithmetic(costs: KnownCosts) -> None:
    limits = Limits(bounds={"trainable_parameters": 20_000.0}, costs=costs)
    kept, refused = strategies_within(limits, SEARCH_SPACES["mini"], FOUR, {})
    assert kept == ("lora", "bitfit") and set(refused) == {"unet", "dora"}
    assert refused["unet"] == "trainable_parameters 2,725,956, of 20,000 allowed"
    kept, _ = strategies_within(limits, SEARCH_SPACES["mini"], ("lora", "bitfit"), {"lora": {"rank": 32}})
    assert kept == ("bitfit",)


@pytest.mark.slow
def test_a_limit_that_none_meets_is_refused(costs: KnownCosts) -> None:
    limits = Limits(bounds={"adapter_mib": 0.001}, costs=costs)
    with pytest.raises(
        ValueError, match=r"limits that none meets: unet has at least adapter_mib 10\.4\d*, of 0\.001 allowed; lora has"
    ):
        strategies_within(limits, SEARCH_SPACES["mini"], FOUR, {})


@pytest.mark.slow
def test_the_first_and_the_last_choices_hold_the_cheapest_of_every_strategy(costs: KnownCosts) -> None:
    """Drawn at random, none is cheaper than what `cheapest` says."""
    space = SEARCH_SPACES["mini"]
    limits = Limits(bounds={"trainable_parameters": 1e12, "adapter_mib": 1e6}, costs=costs)
    names = ("lora", "dora", "selora", "difffit", "attention", "textual_inversion", "dylora", "lora+text_encoder")
    assert set(names) <= set(strategies_of(space))
    cheapest = {name: limits.cheapest(space, name, {}) for name in names}
    for choice in run_alone(make_searcher(num_trials=24, strategies=names)):
        (least, fits), drawn = cheapest[choice["strategy"]["name"]], costs.of(choice, operations=False)
        assert fits and all(drawn[name] >= value - 1e-9 for name, value in least.items())
