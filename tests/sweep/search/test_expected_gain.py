"""The sampler of our own: gains beside exact hypervolumes, and a front that it finds where the answer is known."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from analysis.front.hypervolume import hypervolume, nadir
from analysis.front.pareto import Objective
from search_spaces import SEARCH_SPACES, strategies_of
from sweep.search import expected_gain
from sweep.search.expected_gain import Encoding, FrontModel, most_gainful
from sweep.search.history import Measured, Tried
from sweep.search.plan import SearchPlan
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.search.surrogate import Scales
from sweep.search.turns import value_at
from sweep.trials.ends import FINAL, TrialEnd, TrialListener
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))
STRATEGIES = ("unet", "lora", "bitfit")
PARAMETERS = {"unet": 6.0, "lora": 5.0, "bitfit": 3.0}
BEST = {"unet": 3e-4, "lora": 4e-3, "bitfit": 2e-3}


@pytest.fixture(scope="module")
def plan() -> SearchPlan:
    made = SearchPlan.of(SEARCH_SPACES["mini"], STRATEGIES, {}, num_trials=40, seed=0)
    return replace(made, objectives=OBJECTIVES)


def distance(strategy: str, params: Mapping[str, Any]) -> float:
    """Best at a learning rate of each strategy's own; of a strategy with more parameters better."""
    return 20 - 2 * PARAMETERS[strategy] + 8 * abs(math.log10(params[f"{strategy}/lr"] / BEST[strategy]))


def tried(plan: SearchPlan, number: int, strategy: str, params: Mapping[str, Any], *, is_open: bool = False) -> Tried:
    values = np.array([distance(strategy, params), PARAMETERS[strategy]])
    end = [] if is_open else [Measured(epochs=math.inf, values=values, errors=np.zeros(2))]
    return Tried(number=number, strategy=strategy, params=params, measured=end, is_open=is_open)


def searched(plan: SearchPlan, num: int) -> list[Tried]:
    history: list[Tried] = []
    for number in range(num):
        now = plan.at(number, history=history)
        history.append(tried(plan, number, *most_gainful(now, STRATEGIES[number] if number < 3 else None)))
    return history


def test_each_strategys_learning_rate_is_found(plan: SearchPlan) -> None:
    """After 24 trials each strategy has one within a fifth of a decade of the best; drawn ones are as near in 1 of 8."""
    history = searched(plan, 24)
    for strategy in STRATEGIES:
        best = min(distance(each.strategy, each.params) for each in history if each.strategy == strategy)
        assert best < 20 - 2 * PARAMETERS[strategy] + 8 * 0.2


def test_gains_are_those_of_exact_hypervolumes() -> None:
    """Of worlds without spread, by 2,048 points: within 0.01 of the box."""
    rng = np.random.default_rng(0)
    kept, others = rng.random((5, 3)), rng.random((4, 3))
    values = np.vstack([kept, others])
    worlds = np.array([values, values])
    gains = expected_gain._gains(worlds, 5, expected_gain._points(worlds))
    directions = ["min"] * 3
    bound = nadir(values, directions)  # type: ignore[arg-type]
    best = np.quantile(values, 0.001, axis=0)
    box = float(np.prod(bound - best))
    exact = hypervolume(np.maximum(kept, best), directions, bound)  # type: ignore[arg-type]
    for gain, other in zip(gains, others, strict=True):
        more = hypervolume(np.maximum(np.vstack([kept, other]), best), directions, bound) - exact  # type: ignore[arg-type]
        assert gain == pytest.approx(more / box, abs=0.01)


def test_a_trial_that_runs_is_not_suggested_again(plan: SearchPlan) -> None:
    """Where the best known neighbourhood is being tried, another one is chosen."""
    history = searched(plan, 12)
    now = plan.at(12, history=history)
    strategy, params = most_gainful(now, None)
    running = tried(plan, 12, strategy, params, is_open=True)
    candidates = [(strategy, params), *((name, history[place].params) for place, name in enumerate(STRATEGIES))]
    gain = [
        FrontModel.of(now.at(13, history=seen)).gains(candidates, np.random.default_rng(0))[0]
        for seen in (history, [*history, running])
    ]
    assert gain[1] < 0.5 * gain[0]


def test_limits_are_kept(plan: SearchPlan) -> None:
    small = replace(plan.at(12, history=searched(plan, 12)), is_within=lambda strategy, values: strategy == "bitfit")
    assert {most_gainful(replace(small, attempt=attempt), None)[0] for attempt in range(5)} == {"bitfit"}


def test_a_strategy_that_is_enqueued_is_kept(plan: SearchPlan) -> None:
    assert most_gainful(plan.at(12, history=searched(plan, 12)), "unet")[0] == "unet"


def test_costs_that_are_known_are_exact_and_what_is_known_wrongly_is_learned(plan: SearchPlan) -> None:
    """AdaLoRA ends with fewer parameters than it begins with: here `lora` with a tenth."""
    history = searched(plan, 12)
    exact = replace(plan, known=lambda strategy, values: {"trainable_parameters": PARAMETERS[strategy]})
    model = FrontModel.of(exact.at(12, history=history))
    assert list(model.surrogates) == [0]
    wrong = {**PARAMETERS, "lora": 6.0}
    shrinking = replace(plan, known=lambda strategy, values: {"trainable_parameters": wrong[strategy]})
    model = FrontModel.of(shrinking.at(12, history=history))
    means, _ = model.surrogates[1].predict(model.encoding.places([(each.strategy, each.params) for each in history]))
    np.testing.assert_allclose(means, [-1.0 if each.strategy == "lora" else 0.0 for each in history], atol=0.05)


@pytest.mark.slow
def test_where_trials_fail_others_are_tried(plan: SearchPlan) -> None:
    """Where the low learning rates of every strategy's best half fail, fewer are suggested than where they work."""

    def low(params: Mapping[str, Any]) -> bool:
        return any(value < BEST[name.partition("/")[0]] for name, value in params.items() if name.endswith("/lr"))

    def suggested(history: list[Tried]) -> int:
        return sum(low(most_gainful(plan.at(number, history=history), None)[1]) for number in range(20, 32))

    works = searched(plan, 20)
    failed = Measured(epochs=math.inf, values=np.array([math.inf, math.nan]), errors=np.zeros(2))
    breaks = [replace(trial, measured=[failed]) if low(trial.params) else trial for trial in works]
    assert suggested(breaks) < suggested(works)


def test_of_a_beginning_that_failed_configurations_are_drawn_and_learned_from_later(plan: SearchPlan) -> None:
    """Four failures measure nothing that a model could be made of; with four results they are among what it learns."""
    rng = np.random.default_rng(0)
    history = [tried(plan, number, *expected_gain._drawn(plan, STRATEGIES[number % 3], rng)) for number in range(8)]
    failed = Measured(epochs=math.inf, values=np.array([math.inf, math.nan]), errors=np.zeros(2))
    failures = [replace(trial, measured=[failed]) for trial in history[:4]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [most_gainful(plan.at(number, history=failures), None)[0] for number in (4, 5, 6)]
        chosen = most_gainful(plan.at(8, history=[*failures, *history[4:]]), None)
    assert sorted(drawn) == sorted(STRATEGIES), "without a model the strategies take turns"
    assert chosen != most_gainful(plan.at(8, history=history[4:]), None), "where trials failed is known"


def test_far_outliers_do_not_flatten_the_rest() -> None:
    values = np.array([20.0, 22.0, 24.0, 26.0, 28.0, 500.0])
    fenced = expected_gain._fenced(values)
    np.testing.assert_allclose(fenced[:5], values[:5])
    assert 28 < fenced[5] < 60
    assert 28 <= expected_gain._fenced(np.array([*values[:5], math.inf]))[5] < 60


def test_columns_are_shared_by_name_and_names_have_one_each() -> None:
    made = SearchPlan.of(SEARCH_SPACES["mini"], ("lora", "dora", "attention"), {}, num_trials=4, seed=0)
    encoding = Encoding(made)
    drawn = [
        (name, {key: value_at(0.0, distribution) for key, distribution in space.items()})
        for name, space in made.spaces.items()
    ]
    places = encoding.places(drawn)
    assert places.shares.shape == (3, encoding.num_columns) and len(encoding.shared) == 2
    np.testing.assert_allclose(places.shares[0], places.shares[1])
    assert list(places.strategies) == [0, 1, 2]


def test_every_parameter_of_every_strategy_is_seen() -> None:
    """Those of a combination's parts too: each part has a learning rate."""
    made = SearchPlan.of(SEARCH_SPACES["core"], strategies_of(SEARCH_SPACES["core"]), {}, num_trials=4, seed=0)
    encoding = Encoding(made)
    for strategy, space in made.spaces.items():
        lowest = {name: value_at(0.0, distribution) for name, distribution in space.items()}
        changed = [{**lowest, name: value_at(0.99, distribution)} for name, distribution in space.items()]
        shares = encoding.places([(strategy, params) for params in (lowest, *changed)]).shares
        assert len(np.unique(shares, axis=0)) == 1 + len(space), strategy


def test_where_every_hyperparameter_is_fixed_strategies_are_chosen() -> None:
    fixed = {name: {"lr": 1e-3, "batch_size": 8} for name in ("unet", "bitfit")}
    made = SearchPlan.of(SEARCH_SPACES["mini"], tuple(fixed), fixed, num_trials=9, seed=0)
    ends = [
        Tried(
            number=number,
            strategy=tuple(fixed)[number % 2],
            params={},
            measured=[Measured(epochs=math.inf, values=np.array([20.0 + 9 * (number % 2)]), errors=np.ones(1))],
            is_open=False,
        )
        for number in range(8)
    ]
    now = replace(made, objectives=OBJECTIVES[:1]).at(8, history=ends)
    assert most_gainful(now, None) == ("unet", {})


def test_costs_are_known_though_logarithms_are_rounded_otherwise(plan: SearchPlan) -> None:
    """The difference would be learned as if it were a cost's, and decide which of two equal costs is the lower."""
    rounded = replace(plan, known=lambda strategy, values: {"trainable_parameters": PARAMETERS[strategy] + 1e-15})
    assert list(FrontModel.of(rounded.at(12, history=searched(plan, 12))).surrogates) == [0]


def test_of_a_beginning_without_results_nothing_is_needed(plan: SearchPlan) -> None:
    """As where the first trials were lost, or a broken sweep leaves out a number."""
    history = [replace(trial, number=trial.number + 6) for trial in searched(plan, 6)]
    lost = [replace(trial, number=number, measured=[]) for number, trial in enumerate(history)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert most_gainful(plan.at(5, history=[*lost, *history]), None)[0] in STRATEGIES


def going(number: int, trial_id: str, lr: float) -> list[Callable[[TrialListener], None]]:
    """What befalls a trial: a rung, the same anew as after a loss, and one of three kinds of end."""
    distance = abs(math.log10(lr / 2e-3))
    rung = {"epoch": 0, "early_fid_mini": 9 + distance, "early_fid_mini_se": 0.5, "trainable_parameters": 2000.0}
    final = {"epoch": 8, FINAL: True, "fid_mini": distance, "trainable_parameters": 2000.0}
    ends = [TrialEnd.completed(), TrialEnd.completed(), TrialEnd.stopped("is far", 0), TrialEnd.failed("diverged")]
    return [
        lambda listener: listener.on_report(trial_id, {**rung, "early_fid_mini": 90.0}),
        lambda listener: listener.on_report(trial_id, rung),
        *([lambda listener: listener.on_report(trial_id, final)] if number % 4 < 2 else []),
        lambda listener: listener.on_end(trial_id, ends[number % 4]),
    ]


@pytest.mark.slow
def test_a_search_that_goes_on_from_its_log_suggests_the_same() -> None:
    """Retried, stopped and failed trials among them, those of a combination too; what is running stays open."""
    options: dict[str, Any] = {"sampler": SEARCH_SAMPLERS["front"], "num_trials": 14, "seed": 0}
    options |= {"strategies": ("lora", "unet+vae"), "known": lambda choice: {"trainable_parameters": 2000.0}}
    events: list[Callable[[TrialListener], None]] = []
    first, wanted = OptunaSearcher(SEARCH_SPACES["mini"], OBJECTIVES, **options), []
    for number in range(14):
        told = json.loads(json.dumps(first.suggest("")))
        if number >= 10:
            second = OptunaSearcher(SEARCH_SPACES["mini"], OBJECTIVES, **options)
            for event in events:
                event(second)
            wanted.append((told, json.loads(json.dumps(second.suggest("")))))
        suggestion = Suggestion.of_config(told)
        going_on = going(number, suggestion.trial_id, suggestion.choice["lr"])
        events.append(partial(lambda begun, listener: listener.on_start(begun), suggestion))
        events += going_on if number != 9 else going_on[:2]
        for event in going_on if number != 9 else going_on[:2]:
            event(first)
    assert all(ours == theirs for ours, theirs in wanted)


def test_scales_are_fitted_once_for_a_beginning(plan: SearchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    history = searched(plan, 14)
    expected_gain._fitted.cache_clear()
    fits = []
    fit = Scales.fit
    monkeypatch.setattr(Scales, "fit", lambda *args: fits.append(args) or fit(*args))
    for number in (13, 14):
        FrontModel.of(plan.at(number, history=history[:number]))
    assert len(fits) == len(OBJECTIVES)


def test_a_long_search_fits_its_scales_to_no_more_than_its_first_trials(
    plan: SearchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit takes as long as the cube of what it is given, and the sweep waits for it."""
    rng = np.random.default_rng(0)
    history = [tried(plan, number, *expected_gain._drawn(plan, STRATEGIES[number % 3], rng)) for number in range(150)]
    any_scales = Scales(lengths=np.ones(4), variances=np.ones(7), noise=0.1, shared=(0, 1))
    fits: list[int] = []
    monkeypatch.setattr(Scales, "fit", lambda places, *rest: fits.append(len(places)) or any_scales)
    for number in (120, 150):
        FrontModel.of(plan.at(number, history=history[:number]))
    assert fits == [expected_gain.MOST_FOR_SCALES] * len(OBJECTIVES)
