"""What a search takes over from earlier sweeps: observations where they are comparable, proposals where they are not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from analysis.front.pareto import Objective
from search_spaces import SEARCH_SPACES
from sweep.search.earlier import MOST_PROPOSED
from sweep.search.history import History
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.trials.earlier import EarlierSweep
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))
FOUR = ("unet", "lora", "dora", "bitfit")


def make_searcher(
    sampler: str = "tpe", strategies: Sequence[str] = FOUR, *, seed: int = 0, num_trials: int = 12, **options: Any
) -> OptunaSearcher:
    return OptunaSearcher(
        SEARCH_SPACES["mini"],
        OBJECTIVES,
        sampler=SEARCH_SAMPLERS[sampler],
        num_trials=num_trials,
        seed=seed,
        strategies=strategies,
        **options,
    )


def scores(choice: Any) -> dict[str, float]:
    """LoRA at a learning rate near 2e-3 is best; all train as much."""
    distance = abs(math.log10(choice["lr"] / 2e-3))
    return {"fid_mini": distance + 3.0 * (choice["strategy"]["name"] != "lora"), "trainable_parameters": 100.0}


def run(searcher: OptunaSearcher, most: int = 1000) -> list[Suggestion]:
    made: list[Suggestion] = []
    while len(made) < most and (config := searcher.suggest("next")) != Searcher.FINISHED:
        assert isinstance(config, dict)
        made.append(Suggestion.of_config(config))
        searcher.on_report(made[-1].trial_id, scores(made[-1].choice))
        searcher.on_end(made[-1].trial_id, TrialEnd.completed())
    return made


def earlier(*differs: str, num_trials: int = 12, folder: str = "runs/a", **options: Any) -> EarlierSweep:
    """What a whole search by random found, as it comes back from an event log."""
    made = run(make_searcher("random", seed=9, num_trials=num_trials, **options))
    trials = [{"choice": item.choice, "params": item.params, "metrics": scores(item.choice)} for item in made]
    return EarlierSweep(folder=folder, differs=differs, trials=json.loads(json.dumps(trials)))


def told(searcher: OptunaSearcher, *sweeps: EarlierSweep) -> OptunaSearcher:
    for sweep in sweeps:
        searcher.on_earlier(sweep)
    return searcher


def test_comparable_results_are_observations_and_none_of_this_sweeps_trials() -> None:
    sweep, searcher = earlier(), told(make_searcher(), earlier())
    observed = searcher.study.trials
    assert [item.values for item in observed] == [list(trial["metrics"].values()) for trial in sweep.trials]
    assert {item.user_attrs["earlier"] for item in observed} == {"runs/a"}
    made = run(searcher)
    assert [item.number for item in made] == list(range(12)) and len(searcher.study.trials) == 24
    assert [item.choice["strategy"]["name"] for item in made[:4]] == list(FOUR)
    for item in made:
        assert searcher.record(item.trial_id).user_attrs == {"trial_id": item.trial_id}
        assert searcher.record(item.trial_id).values == list(scores(item.choice).values())


@pytest.mark.slow
def test_a_search_that_was_told_begins_where_the_other_ended() -> None:
    """Of the eight trials after each strategy's first, more are of the best strategy than without; three seeds."""

    def good(*sweeps: EarlierSweep) -> int:
        made = [run(told(make_searcher(seed=seed), *sweeps))[4:] for seed in range(3)]
        return sum(item.choice["strategy"]["name"] == "lora" for part in made for item in part)

    assert good(earlier(num_trials=40)) > good() + 4


def test_the_sampler_front_learns_from_them_too() -> None:
    with_them, alone = (
        run(searcher, 6) for searcher in (told(make_searcher("front"), earlier()), make_searcher("front"))
    )
    assert [item.choice for item in with_them[4:]] != [item.choice for item in alone[4:]]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 12),
        ({"strategies": ("lora", "bitfit")}, {"lora", "bitfit"}),
        ({"hyperparameters": {"lora": {"rank": 5}}}, {"unet", "dora", "bitfit"}),
        ({"hyperparameters": {"lora": {"targets": "all_linear"}}}, {"unet", "dora", "bitfit"}),
    ],
)
def test_results_of_what_this_search_does_not_draw_are_left_out(options: dict[str, Any], left: Any) -> None:
    seen_values = [item.params["strategy"] for item in told(make_searcher(**options), earlier()).study.trials]
    assert len(seen_values) == left if isinstance(left, int) else set(seen_values) == left


def test_a_value_beyond_the_ranges_is_no_observation() -> None:
    sweep = earlier()
    for trial in sweep.trials:
        name = trial["params"]["strategy"]
        trial["params"][f"{name}/lr"] = trial["choice"]["lr"] = 0.5
    assert told(make_searcher(), sweep).study.trials == []


def test_the_front_of_another_sweep_is_proposed_after_each_strategys_first_trial() -> None:
    first, second = earlier("data"), earlier("training.num_epochs", folder="runs/b", strategies=("dora",))
    searcher = told(make_searcher(), first, second)
    assert searcher.study.trials == []
    made = [item.params for item in run(searcher)]
    assert [item["strategy"] for item in made[:4]] == list(FOUR)
    due = [first.trials[0], second.trials[0], first.trials[1], second.trials[1]]
    assert made[4 : 4 + MOST_PROPOSED] == [trial["params"] for trial in due]
    alone = [item.params for item in run(make_searcher())]
    assert len(made) == 12 and made[8:] != alone[8:]


def test_of_a_proposal_what_lies_beyond_the_ranges_is_left_to_the_sampler() -> None:
    sweep = earlier("base", strategies=("lora",), num_trials=1)
    sweep.trials[0]["params"]["lora/lr"] = 0.5
    made = run(told(make_searcher(), sweep), most=5)[4].params
    kept = {name: value for name, value in sweep.trials[0]["params"].items() if name != "lora/lr"}
    assert made.items() >= kept.items() and 5e-4 <= made["lora/lr"] <= 1e-2


def test_a_proposal_over_a_limit_is_not_tried() -> None:
    sweep = earlier("base", strategies=("lora",), num_trials=6)
    ranks = [trial["choice"]["strategy"]["rank"] for trial in sweep.trials]
    searcher = make_searcher(excess=lambda choice: {"rank": choice["strategy"].get("rank", 0) / 4 - 1})
    made = run(told(searcher, sweep))
    assert max(ranks[:4]) > 4 and len(made) == 12
    assert all(item.choice["strategy"].get("rank", 0) <= 4 for item in made)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "front", "gp", "nsga2", "qmc", "grid"])
def test_a_search_that_hears_all_from_its_log_goes_on_as_if_never_broken(sampler: str) -> None:
    sweeps = (earlier(), earlier("data", folder="runs/b"))
    whole, second = (told(make_searcher(sampler), *sweeps) for _ in range(2))
    made = run(whole)
    for item in made[:6]:
        second.on_start(Suggestion.of_config(json.loads(json.dumps(item.as_config()))))
        second.on_report(item.trial_id, scores(item.choice))
        second.on_end(item.trial_id, TrialEnd.completed())
    second.resume()
    assert [item.choice for item in run(second)] == [item.choice for item in made[6:]]


def test_a_grid_tries_what_an_earlier_sweep_has_tried() -> None:
    options: dict[str, Any] = {"hyperparameters": {"bitfit": {"batch_size": 16}}}
    grid = {"sampler": "grid", "strategies": ("bitfit",), "num_trials": 3, **options}
    made = run(make_searcher(**grid))
    trials = [{"choice": item.choice, "params": item.params, "metrics": scores(item.choice)} for item in made]
    again = told(make_searcher(**grid), EarlierSweep(folder="runs/a", differs=(), trials=trials))
    assert len(again.study.trials) == 3
    assert [item.choice for item in run(again)] == [item.choice for item in made]
    assert {trial.state for trial in again.study.trials} == {TrialState.COMPLETE}


def test_a_history_keeps_the_newest_earlier_trials_under_numbers_of_their_own() -> None:
    history = History(OBJECTIVES)
    for count in range(105):
        history.add_earlier("unet", {}, {"fid_mini": float(count), "trainable_parameters": 10.0})
    history.on_start(Suggestion(trial_id="a", number=0, choice={"strategy": {"name": "unet"}}))
    *kept, part = history
    ends = [item.end.values.tolist() for item in kept if item.end is not None]
    assert len(ends) == len({item.number for item in kept}) == 100 and max(item.number for item in kept) < -1000
    assert sorted(value for value, _ in ends) == list(map(float, range(5, 105))) and {cost for _, cost in ends} == {1.0}
    assert part.number == 0 and not any(item.is_open for item in kept)


def test_what_becomes_of_a_sweep_is_told() -> None:
    assert earlier().told() == "runs/a is of the same data and evaluation: its 12 completed trials are observations"
    assert earlier("data", "base").told() == (
        "runs/a differs in data, base: its results do not count, and configurations of its front are proposed"
    )
