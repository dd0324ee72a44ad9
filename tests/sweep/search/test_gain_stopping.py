"""Stops by what a trial's rest is worth: where curves and costs are known, the trial that should go on does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.front.pareto import Objective
from search_spaces import SEARCH_SPACES
from sweep.search.gain_stopping import LEAST_WORTH, GainStopping, make_stopping, with_shared_seconds, worth_of_rest
from sweep.search.history import Measured, Tried
from sweep.search.ladder import Ladder
from sweep.search.plan import SearchPlan, Values
from sweep.search.samplers import SEARCH_SAMPLERS
from sweep.search.searcher import OptunaSearcher
from sweep.search.stopping import RuleStopping
from sweep.search.stopping_rules import TRIAL_SCHEDULERS
from sweep.search.turns import share_at, value_at
from sweep.trials.ends import FINAL, TrialEnd
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("trainable_parameters", "min"))
PARAMETERS = {"unet": 4.0, "bitfit": 3.0}
BEST = {"unet": 10.0, "bitfit": 20.0}
FALL = {"unet": 30.0, "bitfit": 1.0}
"""By how much a strategy's distance falls from the first rung to the end."""
LADDER = Ladder(epochs=(1, 3))
NUM_EPOCHS = 9


@pytest.fixture(scope="module")
def plan() -> SearchPlan:
    """A search whose strategies have one learning rate that is best, in the middle; BitFit has tried it."""
    made = SearchPlan.of(SEARCH_SPACES["mini"], tuple(PARAMETERS), {}, num_trials=40, seed=0)
    made = replace(
        made, objectives=OBJECTIVES, known=lambda strategy, _: {"trainable_parameters": PARAMETERS[strategy]}
    )
    shares = {"unet": (0.1, 0.35, 0.65, 0.9), "bitfit": (0.1, 0.35, 0.5, 0.9)}
    history = [
        trial(made, 2 * place + turn, strategy, shares[strategy][place], whole=True)
        for place in range(4)
        for turn, strategy in enumerate(PARAMETERS)
    ]
    return made.at(len(history), history=history)


def trial(
    plan: SearchPlan,
    number: int,
    strategy: str,
    share: float,
    *,
    whole: bool = False,
    luck: float = 0.0,
    epochs: int = 1,
) -> Tried:
    """One whose end is its strategy's best, and six more for each quarter of the range that its learning rate is off."""
    params: Values = {name: value_at(share, distribution) for name, distribution in plan.spaces[strategy].items()}
    params = {**params, "batch_size": 16}
    end = BEST[strategy] + 24 * abs(share - 0.5) + luck
    stages = [(float(epoch), end + FALL[strategy] / epoch) for epoch in range(1, epochs + 1, 2)]
    measured = [
        Measured(epochs=epoch, values=np.array([fid, PARAMETERS[strategy]]), errors=np.array([0.1, 0.0]))
        for epoch, fid in [*stages, *([(math.inf, end)] if whole else [])]
    ]
    return Tried(number=number, strategy=strategy, params=params, measured=measured, is_open=not whole)


def worth(plan: SearchPlan, tried: Tried, epochs: int = 1) -> float:
    return worth_of_rest(replace(plan, history=(*plan.history, tried)), tried.number, epochs, NUM_EPOCHS)


def test_a_trial_that_will_beat_its_strategy_is_worth_more_than_one_that_will_not(plan: SearchPlan) -> None:
    good, bad = (worth(plan, trial(plan, 8, "bitfit", 0.5, luck=luck)) for luck in (-8.0, 20.0))
    assert good > 1 and bad < 0.1


def test_two_that_show_the_same_at_a_rung_are_told_apart_by_how_their_strategies_go_on(plan: SearchPlan) -> None:
    """A U-Net's distance falls by 30 from the rung to its end, a BitFit's by 1."""
    slow = trial(plan, 8, "unet", 0.5, luck=-8.0)
    same = trial(plan, 8, "bitfit", 0.5, luck=11.0)
    assert slow.measured[0].values[0] == same.measured[0].values[0] == 32
    assert worth(plan, slow) >= LEAST_WORTH > 10 * worth(plan, same)


def test_the_less_is_left_the_more_the_rest_is_worth(plan: SearchPlan) -> None:
    """The same gain by the cost of 6 of 9 epochs, not of 8."""
    tried = trial(plan, 8, "unet", 0.5)
    assert worth(plan, tried, 3) == pytest.approx(8 / 6 * worth(plan, tried, 1))


def timed(plan: SearchPlan, tried: Tried, seconds: Mapping[str, float], *, alone: float = 0.0) -> float:
    """The worth of a trial's rest where strategies differ in seconds, as logarithms, and it had fewer of them alone."""

    def with_seconds(each: Tried) -> Tried:
        more = seconds[each.strategy] - (alone if each is tried else 0.0)
        stages = [
            replace(stage, values=np.append(stage.values, more), errors=np.append(stage.errors, 0.0))
            for stage in each.measured
        ]
        return replace(each, measured=stages)

    objectives = (*OBJECTIVES, Objective("epoch_s", "min"))
    history = [with_seconds(each) for each in (*plan.history, tried)]
    return worth_of_rest(replace(plan, objectives=objectives, history=history), tried.number, 1, NUM_EPOCHS)


def test_a_trial_does_not_go_on_for_having_run_alone_but_a_strategy_does_for_being_quick(plan: SearchPlan) -> None:
    tried = trial(plan, 8, "bitfit", 0.4)
    as_others = timed(plan, tried, {"unet": 1.0, "bitfit": 1.0})
    assert timed(plan, tried, {"unet": 1.0, "bitfit": 1.0}, alone=0.7) == as_others
    assert timed(plan, tried, {"unet": 1.0, "bitfit": 0.3}) != as_others


def test_failures_are_not_timed_and_earlier_sweeps_keep_their_own_seconds(plan: SearchPlan) -> None:
    def ended(number: int, fid: float, seconds: float) -> Tried:
        end = Measured(epochs=math.inf, values=np.array([fid, seconds]), errors=np.zeros(2))
        return Tried(number=number, strategy="unet", params={}, measured=[end], is_open=False)

    history = [
        ended(-9, 5.0, 9.0),
        ended(0, 5.0, 1.0),
        ended(1, 6.0, 2.0),
        ended(2, 7.0, 6.0),
        ended(3, math.inf, math.nan),
    ]
    objectives = (Objective("fid_mini", "min"), Objective("epoch_s", "min"))
    shared = with_shared_seconds(replace(plan, objectives=objectives, history=history)).history
    values = np.array([each.measured[0].values for each in shared])
    np.testing.assert_array_equal(values.T, [[5.0, 5.0, 6.0, 7.0, math.inf], [9.0, 2.0, 2.0, 2.0, math.nan]])


def test_where_nothing_else_is_allowed_a_trial_goes_on(plan: SearchPlan) -> None:
    closed = replace(plan, is_within=lambda strategy, values: False)
    assert worth(closed, trial(plan, 8, "bitfit", 0.9, luck=9.0)) == math.inf


def test_where_all_trials_have_begun_the_last_ones_go_on(plan: SearchPlan) -> None:
    """There is no other training that what is left of theirs could be spent on."""
    hopeless = trial(plan, 8, "bitfit", 0.5, luck=20.0)
    assert (
        worth(replace(plan, number=39), hopeless) < LEAST_WORTH
        and worth(replace(plan, number=40), hopeless) == math.inf
    )


def test_once_a_search_is_over_what_runs_goes_on() -> None:
    """By its hours, for instance, with trials left to suggest."""
    search = Search()
    last = events(search)[-1][1].trial_id
    assert search.stopping.decide(last, at_rung(90.0)) is not None
    search.is_over = True
    assert search.stopping.decide(last, at_rung(90.0)) is None


def test_where_rungs_tell_nothing_a_trial_goes_on(plan: SearchPlan) -> None:
    """All objectives are costs."""
    silent = replace(trial(plan, 8, "bitfit", 0.9), measured=[])
    assert worth(replace(plan, history=()), silent) == math.inf


def on_a_line(*, is_led: bool, seed: int, second: str) -> float:
    """The worth of a trial's rest among costs that are all known: of a learning rate's share u, they are u and 1 - u.

    Trials at both ends have ended, and the one in the middle is after the first of nine epochs.
    """
    plan = SearchPlan.of(SEARCH_SPACES["mini"], ("bitfit",), {}, num_trials=40, seed=seed)
    rates = plan.spaces["bitfit"]["bitfit/lr"]

    def known(strategy: str, values: Values) -> dict[str, float]:
        share = float(share_at(values["bitfit/lr"], rates))
        return {"trainable_parameters": share, second: 1 - share}

    def at(number: int, share: float, epochs: float) -> Tried:
        params = {"bitfit/lr": value_at(share, rates), "batch_size": 16}
        measured = Measured(epochs=epochs, values=np.array([share, 1 - share]), errors=np.zeros(2))
        return Tried(number=number, strategy="bitfit", params=params, measured=[measured], is_open=number == 2)

    history = [at(0, 0.0, math.inf), at(1, 1.0, math.inf), at(2, 0.5, 1.0)]
    objectives = (Objective("trainable_parameters", "min"), Objective(second, "min"))
    plan = replace(plan, objectives=objectives, known=known, is_led=is_led)
    return worth_of_rest(plan.at(3, history=history), 2, 1, NUM_EPOCHS)


@pytest.mark.slow
@pytest.mark.parametrize("second", ["adapter_mib", "operations_per_image"])
def test_beside_a_sampler_that_nothing_leads_it_is_the_expected_gain_of_a_random_training_that_counts(
    second: str,
) -> None:
    """The middle adds a square of 1/4; beside it, a place u < 1/2 adds u (1/2 - u), at most 1/16 and 1/24 on the average.

    Operations are the price of a training too: 10^(1 - u), at the middle 10^(1/2) and 9 / ln 10 on the average.
    """
    mean = 1 / np.mean([1 / on_a_line(is_led=False, seed=seed, second=second) for seed in range(96)])
    price = 9 / math.log(10) / math.sqrt(10) if second == "operations_per_image" else 1.0
    assert mean == pytest.approx(9 / 8 * (1 / 4) / (1 / 24) * price, rel=0.06)
    if second == "adapter_mib":
        assert on_a_line(is_led=True, seed=0, second=second) == pytest.approx(9 / 8 * (1 / 4) / (1 / 16), rel=0.06)


class Search:
    """Searcher and stopping decisions of a sweep, each of which hears all."""

    def __init__(self, sampler: str = "random", *, strategies: Sequence[str] = ("lora",), num_trials: int = 20) -> None:
        self.is_over = False
        self.searcher = OptunaSearcher(
            SEARCH_SPACES["mini"],
            OBJECTIVES,
            sampler=SEARCH_SAMPLERS[sampler],
            num_trials=num_trials,
            seed=0,
            strategies=strategies,
            known=lambda choice: {"trainable_parameters": 1000.0},
            is_over=lambda: self.is_over,
        )
        self.asked: list[str] = []
        self.stopping = make_stopping("gain", self.plan_with, LADDER, OBJECTIVES, eta=3, num_epochs=NUM_EPOCHS)

    def plan_with(self, trial_id: str, metrics: Mapping[str, Any]) -> SearchPlan:
        self.asked.append(trial_id)
        return self.searcher.plan_with(trial_id, metrics)

    def tell(self, event: str, *args: Any) -> None:
        for listener in (self.stopping, self.searcher):
            getattr(listener, event)(*args)


def at_rung(fid: float, epoch: int = 0) -> dict[str, Any]:
    return {"epoch": epoch, FINAL: False, "early_fid_mini": fid, "early_fid_mini_se": 0.1, "trainable_parameters": 1000}


def events(search: Search, num: int = 6) -> list[tuple[Any, ...]]:
    """Trials that all come to their end, and one that has just reported a distance that is far off."""
    told: list[tuple[Any, ...]] = []

    def tell(*event: Any) -> None:
        told.append(event)
        search.tell(*event)

    for number in range(num + 1):
        suggestion = Suggestion.of_config(search.searcher.suggest(""))  # type: ignore[arg-type]
        tell("on_start", suggestion)
        fid = 90.0 if number == num else 20.0 + number
        if number < num:
            tell("on_report", suggestion.trial_id, at_rung(fid + 3))
            tell("on_report", suggestion.trial_id, at_rung(fid + 2, epoch=2))
            tell(
                "on_report",
                suggestion.trial_id,
                {"epoch": 8, FINAL: True, "fid_mini": fid, "trainable_parameters": 1000},
            )
            tell("on_end", suggestion.trial_id, TrialEnd.completed())
    return told


def test_a_trial_far_off_is_stopped_and_after_a_break_at_its_next_rung() -> None:
    live = Search()
    told = events(live)
    last = told[-1][1].trial_id
    end = live.stopping.decide(last, at_rung(90.0))
    assert end is not None and (end.kind, end.rung) == ("stopped", 0)
    assert live.stopping.decide(last, at_rung(90.0)) == end, "a question changes nothing"
    again = after_a_break([*told, ("on_report", last, at_rung(90.0))])
    assert again.stopping.undone() == {}, "whether it was told to go on is not in the log"
    later = again.stopping.decide(last, at_rung(88.0, epoch=2))
    assert later is not None and (later.kind, later.rung) == ("stopped", 1)


def after_a_break(told: list[tuple[Any, ...]]) -> Search:
    """A search that has heard a log, without asking the model."""
    again = Search()
    for event in told:
        again.tell(*event)
    assert again.asked == []
    return again


def test_trials_that_went_on_are_not_stopped_by_a_break() -> None:
    """What arrived after them would have stopped the first four, whom nothing was known to compare with."""
    live, told = Search(), []
    for fid in (40.0, 41.0, 42.0, 43.0, 20.0, 20.0):
        suggestion = Suggestion.of_config(live.searcher.suggest(""))  # type: ignore[arg-type]
        told.append(("on_start", suggestion))
        live.tell(*told[-1])
        assert live.stopping.decide(suggestion.trial_id, at_rung(fid)) is None
        told.append(("on_report", suggestion.trial_id, at_rung(fid)))
        live.tell(*told[-1])
    assert all(live.stopping.decide(event[1], event[2]) for event in told[1:8:2]), "asked anew they would be stopped"
    assert after_a_break(told).stopping.undone() == {}


def test_a_promising_trial_goes_on_and_the_first_few_do_whatever_they_show() -> None:
    search = Search()
    last = events(search)[-1][1].trial_id
    assert search.stopping.decide(last, at_rung(5.0)) is None
    few = Search()
    last = events(few, num=3)[-1][1].trial_id
    assert few.stopping.decide(last, at_rung(90.0)) is None and few.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("is_owed", [True, False])
def test_the_last_trials_see_to_it_that_each_strategy_is_trained_to_its_end(
    is_owed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BitFit shows what no other strategy comes near; only the first four trials are compared with none."""
    if not is_owed:
        monkeypatch.setattr(SearchPlan, "owed", lambda plan, without=None: [])
    strategies = ("bitfit", "lora", "dora", "unet", "norm", "attention")
    search, whole = Search("front", strategies=strategies, num_trials=12), []
    for _ in range(12):
        suggestion = Suggestion.of_config(search.searcher.suggest(""))  # type: ignore[arg-type]
        strategy = suggestion.choice["strategy"]["name"]
        fid = 10.0 if strategy == "bitfit" else 90.0
        search.tell("on_start", suggestion)
        end = search.stopping.decide(suggestion.trial_id, at_rung(fid))
        search.tell("on_report", suggestion.trial_id, at_rung(fid))
        if end is None:
            whole.append(strategy)
            last = {"epoch": 8, FINAL: True, "fid_mini": fid, "trainable_parameters": 1000}
            search.tell("on_report", suggestion.trial_id, last)
        search.tell("on_end", suggestion.trial_id, end or TrialEnd.completed())
    assert (set(whole) == set(strategies)) == is_owed and len(whole) < 12


def test_owed_are_strategies_of_which_no_trial_is_whole_or_may_be(plan: SearchPlan) -> None:
    stopped = replace(trial(plan, 1, "unet", 0.5), is_open=False)
    failed = Measured(epochs=math.inf, values=np.array([math.inf, math.nan]), errors=np.zeros(2))
    for history, owed in (
        ([], ["unet", "bitfit"]),
        ([trial(plan, 0, "unet", 0.5)], ["bitfit"]),
        ([stopped], ["unet", "bitfit"]),
        ([replace(stopped, measured=[failed])], ["bitfit"]),
        ([stopped, trial(plan, 2, "unet", 0.5, whole=True)], ["bitfit"]),
        ([trial(plan, -5, "unet", 0.5, whole=True), trial(plan, 3, "bitfit", 0.5)], ["unet"]),
    ):
        assert plan.at(8, history=history).owed() == owed
    assert plan.at(8, history=[trial(plan, 0, "unet", 0.5)]).owed(without=0) == ["unet", "bitfit"]


@pytest.mark.parametrize(("owed", "goes_on"), [("lora", True), ("unet", False)])
def test_a_trial_of_another_strategy_does_not_go_on_for_those_that_are_owed(
    owed: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    last = events(search)[-1][1].trial_id
    monkeypatch.setattr(SearchPlan, "owed", lambda plan, without=None: [owed] * 20)
    assert (search.stopping.decide(last, at_rung(90.0)) is None) == goes_on


def test_floors_are_kept() -> None:
    search = Search()
    floored = Ladder(epochs=(1, 3), floors={"lora": 3})
    search.stopping = GainStopping(search.plan_with, floored, OBJECTIVES, num_epochs=NUM_EPOCHS)
    last = events(search)[-1][1].trial_id
    assert search.stopping.decide(last, at_rung(90.0)) is None


@pytest.mark.parametrize("name", TRIAL_SCHEDULERS)
def test_every_trial_scheduler_is_made_by_its_name(name: str) -> None:
    made = make_stopping(name, Search().plan_with, LADDER, OBJECTIVES, eta=3, num_epochs=NUM_EPOCHS)
    assert type(made) is (GainStopping if name == "gain" else RuleStopping) and made.undone() == {}


@pytest.mark.parametrize(("sampler", "is_led"), [("random", False), ("qmc", False), ("grid", False), ("tpe", True)])
def test_a_search_knows_whether_results_lead_it(sampler: str, is_led: bool) -> None:
    search = Search(sampler)
    last = events(search)[-1][1].trial_id
    assert search.searcher.plan_with(last, at_rung(90.0)).is_led == is_led
    end = search.stopping.decide(last, at_rung(90.0))
    assert end is not None and end.reason is not None
    assert ("the best new training" in end.reason, "at random" in end.reason) == (is_led, not is_led)
