"""The search: every Optuna trial ends in a definite state."""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher

from analysis.front.pareto import Objective
from search_spaces import SEARCH_SPACES, strategies_of
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import REASON, RUNG, OptunaSearcher, trial_id_of
from sweep.trials.ends import FINAL, TrialEnd
from sweep.trials.relay import Relay
from sweep.trials.scheduling import TrialScheduler
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
FOUR = ("unet", "lora", "dora", "bitfit")


def make_searcher(
    num_trials: int = 12, seed: int = 0, strategies: tuple[str, ...] | None = FOUR, **options: Any
) -> OptunaSearcher:
    return OptunaSearcher(
        SEARCH_SPACES["mini"],
        OBJECTIVES,
        **{
            "sampler": SEARCH_SAMPLERS["tpe"],
            "num_trials": num_trials,
            "seed": seed,
            "strategies": strategies,
            **options,
        },
    )


def good_result(config: dict[str, Any]) -> dict[str, Any]:
    """A smooth function of the configuration: LoRA near 2e-3 is best."""
    strangeness = 0.0 if config["strategy"]["name"] == "lora" else 3.0
    distance = abs(math.log10(config["lr"]) - math.log10(2e-3))
    return {"fid_mini": strangeness + distance, "vendi_mini": 5.0 - distance, FINAL: True}


def suggested(searcher: OptunaSearcher) -> Suggestion:
    config = searcher.suggest("what Tune calls it")
    assert isinstance(config, dict)
    return Suggestion.of_config(config)


def complete(searcher: OptunaSearcher, suggestion: Suggestion) -> None:
    searcher.on_report(suggestion.trial_id, good_result(dict(suggestion.choice)))
    searcher.on_end(suggestion.trial_id, TrialEnd.completed())


def run_alone(searcher: OptunaSearcher) -> list[dict[str, Any]]:
    choices: list[dict[str, Any]] = []
    while (config := searcher.suggest("what Tune calls it")) != Searcher.FINISHED:
        assert isinstance(config, dict)
        complete(searcher, Suggestion.of_config(config))
        choices.append(config["choice"])
    return choices


def test_first_trials_try_every_strategy_once_and_the_number_is_kept() -> None:
    configs = run_alone(make_searcher())
    assert [config["strategy"]["name"] for config in configs[:4]] == list(FOUR)
    assert len(configs) == 12


@pytest.mark.slow
def test_without_a_choice_the_whole_space_is_searched() -> None:
    known = strategies_of(SEARCH_SPACES["mini"])
    configs = run_alone(make_searcher(num_trials=len(known), strategies=None))
    assert tuple(config["strategy"]["name"] for config in configs) == known


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_each_strategys_first_trial_takes_the_published_learning_rate(sampler: str) -> None:
    searcher = OptunaSearcher(
        SEARCH_SPACES["core"], OBJECTIVES, sampler=SEARCH_SAMPLERS[sampler], num_trials=6, seed=0, strategies=FOUR
    )
    rates = [config["lr"] for config in run_alone(searcher)]
    assert rates[:4] == [1e-5, 1e-4, 1e-4, 1e-4] and not {1e-5, 1e-4} & set(rates[4:])


def test_a_fixed_hyperparameter_stands_in_every_trial_of_its_strategy_and_in_no_other() -> None:
    fixed = {"lora": {"targets": "all_linear", "alpha": 3.0}, "dora": {"rank": 5}}
    free, bound = run_alone(make_searcher()), run_alone(make_searcher(hyperparameters=fixed))
    for config in bound:
        strategy = config["strategy"]
        assert (strategy.get("targets"), strategy.get("alpha") == 3.0) == (
            ("all_linear", True) if strategy["name"] == "lora" else (None, False)
        )
    ratios = {config["strategy"]["alpha"] / 5 for config in bound if config["strategy"]["name"] == "dora"}
    assert ratios <= {1.0, 2.0, 4.0}
    assert [config["strategy"]["name"] for config in free[:4]] == [config["strategy"]["name"] for config in bound[:4]]


def test_what_is_fixed_is_no_parameter_of_the_search() -> None:
    searcher = make_searcher(strategies=("lora",), hyperparameters={"lora": {"rank": 4}})
    run_alone(searcher)
    assert {name for trial in searcher.study.trials for name in trial.params} == {
        "strategy",
        "lora/alpha_ratio",
        "lora/lr",
        "batch_size",
    }


def test_same_seed_gives_the_same_suggestions() -> None:
    assert run_alone(make_searcher(seed=3)) == run_alone(make_searcher(seed=3))
    assert run_alone(make_searcher(seed=3)) != run_alone(make_searcher(seed=4))


@pytest.mark.slow
def test_search_leans_to_the_better_strategy() -> None:
    """Of 75 trials by three seeds, a sampler that learns nothing gives it 19 with a standard deviation of 4."""
    names: Counter[str] = Counter()
    for seed in range(3):
        choices = run_alone(make_searcher(num_trials=40, seed=seed))
        names.update(choice["strategy"]["name"] for choice in choices[15:])
    assert names["lora"] > 30, names


def high_rates(*, lost: bool) -> int:
    """How many of 75 trials by three seeds have a learning rate above 1e-3, where all such trials fail."""
    high = 0
    for seed in range(3):
        searcher = make_searcher(num_trials=40, seed=seed, strategies=("lora",))
        while (config := searcher.suggest("next")) != Searcher.FINISHED:
            assert isinstance(config, dict)
            suggestion = Suggestion.of_config(config)
            if suggestion.choice["lr"] > 1e-3:
                high += suggestion.number >= 15
                searcher.on_end(suggestion.trial_id, TrialEnd.failed("diverged", lost=lost))
            else:
                complete(searcher, suggestion)
    return high


@pytest.mark.slow
def test_search_leans_away_from_what_fails_by_its_own_fault() -> None:
    """What was lost tells the search nothing: here the best would be just where trials fail."""
    at_fault, told_nothing = high_rates(lost=False), high_rates(lost=True)
    assert at_fault < 0.75 * told_nothing, (at_fault, told_nothing)


def over_rank_four(choice: Mapping[str, Any]) -> dict[str, float]:
    return {"rank": choice["strategy"].get("rank", 0) / 4 - 1}


@pytest.mark.parametrize("sampler", ["front", "grid", "qmc", "nsga2", "random"])
def test_every_sampler_draws_anew_what_was_over_a_limit(sampler: str) -> None:
    options: dict[str, Any] = {"sampler": SEARCH_SAMPLERS[sampler], "strategies": ("unet", "dora", "lora")}
    searcher = make_searcher(num_trials=12, excess=over_rank_four, **options)
    choices = run_alone(searcher)
    assert [choice["strategy"]["name"] for choice in choices[:3]] == ["unet", "dora", "lora"]
    assert len(choices) == 12 and max(choice["strategy"].get("rank", 0) for choice in choices) <= 4
    drawn = [frozenset(trial.params.items()) for trial in searcher.study.trials]
    assert len(drawn) > 12 and (sampler != "grid" or len(set(drawn)) == len(drawn))


def test_a_grid_whose_points_are_over_the_limits_is_refused_once_the_others_are_tried() -> None:
    """Within them are six points of unet, and of lora's five ranks two, with three learning rates, alphas and two batches."""
    options: dict[str, Any] = {"sampler": SEARCH_SAMPLERS["grid"], "strategies": ("unet", "lora")}
    within = 6 + 2 * 3 * 3 * 2
    assert len(run_alone(make_searcher(num_trials=within, excess=over_rank_four, **options))) == within
    with pytest.raises(ValueError, match=r"within search.limits, but got no further point among 96"):
        run_alone(make_searcher(num_trials=within + 1, excess=over_rank_four, **options))


def test_a_search_can_be_narrowed_to_some_strategies() -> None:
    configs = run_alone(make_searcher(num_trials=8, strategies=("dora", "bitfit")))
    assert {config["strategy"]["name"] for config in configs} == {"dora", "bitfit"}


@pytest.mark.parametrize(
    ("end", "state", "attributes"),
    [
        (TrialEnd.failed("`loss` must be finite"), TrialState.PRUNED, {REASON: "`loss` must be finite"}),
        (TrialEnd.failed("its node died", lost=True), TrialState.FAIL, {REASON: "its node died"}),
        (TrialEnd.stopped("beaten", rung=2), TrialState.PRUNED, {REASON: "beaten", RUNG: 2}),
    ],
)
def test_a_trial_that_gave_no_result_has_its_reason_and_no_values(
    end: TrialEnd, state: TrialState, attributes: dict[str, Any]
) -> None:
    searcher = make_searcher()
    suggestion = suggested(searcher)
    trial_id = suggestion.trial_id
    searcher.on_report(trial_id, good_result(dict(suggestion.choice)))
    searcher.on_end(trial_id, end)
    assert searcher.record(trial_id).state == state and searcher.record(trial_id).values is None
    assert searcher.record(trial_id).user_attrs == {"trial_id": trial_id, **attributes}
    at_fault = end.kind == "failed" and not end.lost
    assert searcher.record(trial_id).constraints == ({"works": 1.0} if at_fault else {})
    assert isinstance(searcher.suggest("next"), dict)


def test_a_trial_that_was_lost_is_suggested_again_as_it_was() -> None:
    searcher = make_searcher(num_trials=4)
    first, second = suggested(searcher), suggested(searcher)
    searcher.on_retry(first.trial_id, "its node died")
    assert suggested(searcher) == first
    for suggestion in (first, second, suggested(searcher), suggested(searcher)):
        assert searcher.suggest("next") is None or len(searcher.study.trials) < 4
        complete(searcher, suggestion)
    assert searcher.suggest("next") == Searcher.FINISHED
    assert len(searcher.study.trials) == 4
    searcher.on_retry(first.trial_id, "a loss that is told after its end")
    assert searcher.suggest("next") == Searcher.FINISHED
    complete(searcher, first)  # an end that is told twice
    assert searcher.record(first.trial_id).state == TrialState.COMPLETE


def through_json(suggestion: Suggestion) -> Suggestion:
    """As it comes back from the event log."""
    return Suggestion.of_config(json.loads(json.dumps(suggestion.as_config())))


def test_trials_that_started_before_earlier_ones_leave_no_gap_and_no_name_twice() -> None:
    """Tune starts suggestions in any order: a sweep that dies may have begun the second and not the first."""
    first, second = make_searcher(num_trials=6), make_searcher(num_trials=6)
    suggestions = [suggested(first) for _ in range(6)]
    second.on_start(suggestions[2])
    second.on_start(suggestions[0])
    second.resume()
    again = [suggested(second) for _ in range(6)]
    assert [each.number for each in again] == [2, 0, 1, 3, 4, 5]
    assert again[:2] == [suggestions[2], suggestions[0]] and second.suggest("next") is None
    for suggestion in again:
        complete(second, suggestion)
    assert second.suggest("next") == Searcher.FINISHED
    assert [second.record(each.trial_id).user_attrs["trial_id"] for each in again] == [each.trial_id for each in again]


@pytest.mark.slow
def test_no_two_trials_of_a_sweep_have_one_name() -> None:
    names = {trial_id_of(seed, number) for seed in range(2) for number in range(100_000)}
    assert len(names) == 200_000 and all(len(name) == 8 for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("broken_after", [1, 5, 9])
def test_a_search_that_hears_its_past_goes_on_as_if_never_broken(broken_after: int) -> None:
    """Two trials are under way when it breaks: they come first, as they were, and then what would have come."""
    first, second = make_searcher(), make_searcher()
    for _ in range(broken_after):
        suggestion = suggested(first)
        complete(first, suggestion)
        second.on_start(through_json(suggestion))
        complete(second, suggestion)
    under_way = [suggested(first), suggested(first)]
    for suggestion in under_way:
        second.on_start(through_json(suggestion))
    second.resume()
    assert [suggested(second), suggested(second)] == list(map(through_json, under_way))
    for searcher in (first, second):
        for suggestion in under_way:
            complete(searcher, suggestion)
    assert run_alone(first) == run_alone(second)
    assert [trial.values for trial in first.study.trials] == [trial.values for trial in second.study.trials]
    assert [trial.params for trial in first.study.trials] == [trial.params for trial in second.study.trials]


def test_garbage_is_looked_for_again_once_the_log_is_in_the_study() -> None:
    """What is left out of the search at one time can never be freed: a sweep asks for its study again and again."""
    first, searcher = make_searcher(), make_searcher()
    searcher.on_start(through_json(suggested(first)))
    frozen = gc.get_freeze_count()
    assert len(searcher.study.get_trials(deepcopy=False)) == 1
    kept, later = gc.get_freeze_count(), [[number] for number in range(100)]
    suggested(searcher)
    assert len(searcher.study.get_trials(deepcopy=False)) == 2 and len(later) == 100
    assert frozen < kept and gc.get_freeze_count() <= kept


def test_what_optuna_hears_of_the_log_is_what_it_has_heard_as_trials_ended() -> None:
    live, again = make_searcher(), make_searcher()
    ends = (
        TrialEnd.completed(),
        TrialEnd.stopped("it ranks last", 1),
        TrialEnd.failed("loss must be finite"),
        TrialEnd.failed("its node went", lost=True),
    )
    suggestions = [suggested(live) for _ in range(len(ends) + 1)]  # the last has not ended
    for searcher in (live, again):
        for suggestion in suggestions:
            searcher.on_start(through_json(suggestion))
        for suggestion, end in zip(suggestions, ends, strict=False):
            searcher.on_report(suggestion.trial_id, good_result(dict(suggestion.choice)))
            searcher.on_end(suggestion.trial_id, end)
    heard = [
        [
            (
                trial.number,
                trial.state,
                trial.values,
                trial.params,
                trial.distributions,
                trial.user_attrs,
                trial.constraints,
            )
            for trial in trials
        ]
        for trials in (live.study.trials, again.study.trials)
    ]
    assert heard[0] == heard[1] and len(heard[0]) == 5


def make_misbehaving() -> Callable[[dict[str, Any]], None]:
    """A trial that ends well, without final report, with NaN or with an exception, by its strategy.

    Made in a function so that Ray sends it by value: its workers cannot import a test module.
    """

    def misbehave(config: dict[str, Any]) -> None:
        name = config["choice"]["strategy"]["name"]
        tune.report({"fid_mini": 9.0, "vendi_mini": 1.0})
        if name == "lora":
            raise RuntimeError("loss must be finite")
        if name != "bitfit":
            tune.report({"fid_mini": math.nan if name == "dora" else 1.0, "vendi_mini": 2.0, FINAL: True})

    return misbehave


def test_trials_run_by_ray_all_end_in_definite_states(ray_cluster: None, tmp_path: Path) -> None:
    searcher, scheduler = make_searcher(num_trials=6), TrialScheduler()
    relay = Relay((searcher,), [objective.name for objective in OBJECTIVES], scheduler)
    tuner = tune.Tuner(
        tune.with_resources(make_misbehaving(), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=scheduler, num_samples=-1, max_concurrent_trials=1, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), callbacks=[relay], verbose=0),
    )
    results = tuner.fit()
    ended = {trial.user_attrs["trial_id"]: trial for trial in searcher.study.trials}
    assert len(results) == len(ended) == 6
    for trial in ended.values():
        strategy = trial.params["strategy"]
        good = strategy == "unet"
        # what is a trial's own fault it reports; an exception that Ray hears of is a loss of its process
        ends = {"unet": TrialState.COMPLETE, "lora": TrialState.FAIL}
        assert trial.state == ends.get(strategy, TrialState.PRUNED)
        assert good == (trial.values == [1.0, 2.0])
        assert good != (REASON in trial.user_attrs)
