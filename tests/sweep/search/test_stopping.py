"""The state behind the trial scheduler: who is compared with whom, and that a log gives it back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.front.pareto import Objective
from sweep.search.history import rung_name
from sweep.search.ladder import Ladder
from sweep.search.stopping import RuleStopping
from sweep.search.stopping_rules import STOPPING_RULES, Standing
from sweep.trials.ends import FAILURE, TrialEnd
from sweep.trials.suggestions import Suggestion

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"), Objective("trainable_parameters", "min"))
LADDER = Ladder(epochs=(1, 3), floors={"slow": 3})


def make(rule: Any = STOPPING_RULES["hypervolume"], ladder: Ladder = LADDER) -> RuleStopping:
    return RuleStopping(rule, ladder, OBJECTIVES, eta=3)


def start(stopping: RuleStopping, trial_id: str, strategy: str = "lora") -> str:
    stopping.on_start(Suggestion(trial_id=trial_id, number=0, choice={"strategy": {"name": strategy}}))
    return trial_id


def report(fid: float, *, epoch: int = 0, vendi: float = 3.0, error: float = 0.0, **more: Any) -> dict[str, Any]:
    measured = {"early_fid_mini": fid, "early_fid_mini_se": error, "early_vendi_mini": vendi}
    return {"epoch": epoch, "final": False, "trainable_parameters": 1000, "loss": 1.0, **measured, **more}


def filled(num: int = 4, **options: Any) -> RuleStopping:
    """Trials that have reached the first rung, of which the first was then trained to its end."""
    stopping = make(**options)
    for number in range(num):
        start(stopping, f"t{number}")
        stopping.on_report(f"t{number}", report(10.0 + number, vendi=3.0 + number))
    stopping.on_end("t0", TrialEnd.completed())
    return stopping


@pytest.mark.parametrize(
    ("first", "eta", "num_epochs", "epochs"),
    [(None, 3, 9, (1, 3)), (None, 3, 20, (3, 9)), (None, 3, 4, (1, 3)), (None, 3, 1, ()), (1, 3, 9, (1, 3)),
     (2, 2, 9, (2, 4, 8)), (None, 4, 100, (7, 28)), (5, 3, 5, ())],
)  # fmt: skip
def test_rungs_are_powers_below_the_whole_training(
    first: int | None, eta: int, num_epochs: int, epochs: tuple[int, ...]
) -> None:
    assert Ladder.of(first=first, eta=eta, num_epochs=num_epochs, floors={}).epochs == epochs


def test_a_trial_that_is_beaten_is_stopped_at_its_rung_and_one_that_is_not_goes_on() -> None:
    stopping = filled()
    end = stopping.decide(start(stopping, "bad"), report(50.0, vendi=2.0))
    assert end is not None and (end.kind, end.rung) == ("stopped", 0)
    assert end.reason is not None and end.reason.startswith("after epoch 1 it would add 0.00% to the hypervolume of")
    assert stopping.decide(start(stopping, "good"), report(5.0)) is None


def test_it_goes_on_where_it_is_not_to_be_compared() -> None:
    stopping, bad = filled(), report(50.0, vendi=2.0)
    for_certain = start(stopping, "bad")
    assert stopping.decide(for_certain, bad) is not None
    assert stopping.decide(start(stopping, "first of its strategy", "unet"), bad) is None
    assert stopping.decide(for_certain, {**bad, "epoch": 1}) is None  # no rung
    assert stopping.decide(for_certain, {**bad, "final": True}) is None
    assert stopping.decide(for_certain, {FAILURE: "out of memory"}) is None
    assert stopping.decide(for_certain, {"epoch": 0, "evaluation_error": "the actor died"}) is None
    assert stopping.decide(for_certain, {**bad, "early_vendi_mini": float("nan")}) is None
    assert stopping.decide(for_certain, {**bad, "epoch": 2}) is None  # nobody has reached that rung yet
    few = filled(num=3)
    assert few.decide(start(few, "bad"), bad) is None


def test_a_floor_keeps_a_strategy_until_it_is_reached() -> None:
    stopping = filled()
    start(stopping, "done", "slow")
    stopping.on_end("done", TrialEnd.completed())
    for number in range(1, 4):
        stopping.on_report(f"t{number}", report(10.0 + number, epoch=2, vendi=3.0 + number))
    stopping.on_report("done", report(10.0, epoch=2))
    slow = start(stopping, "slow", "slow")
    assert stopping.decide(slow, report(50.0)) is None
    assert stopping.decide(slow, report(50.0, epoch=2)) is not None


def test_a_strategy_whose_trials_were_stopped_or_failed_has_not_finished() -> None:
    stopping = filled()
    for end in (TrialEnd.stopped("beaten", rung=0), TrialEnd.failed("diverged")):
        stopping.on_end(start(stopping, end.kind, "unet"), end)
    assert stopping.decide(start(stopping, "another", "unet"), report(50.0)) is None


def test_a_question_changes_nothing_and_a_rule_sees_what_came_before_in_one_direction() -> None:
    seen: list[Standing] = []
    stopping = filled(rule=lambda standing: seen.append(standing))
    start(stopping, "own")
    for _ in range(2):
        stopping.decide("own", report(7.0, vendi=9.0, error=0.5))
    stopping.on_report("own", report(7.0, vendi=9.0, error=0.5))
    for standing in seen[-3:]:
        assert standing.values.tolist() == [7.0, -9.0, 3.0] and standing.errors.tolist() == [0.5, 0.0, 0.0]
        assert standing.others[:, 0].tolist() == [10.0, 11.0, 12.0, 13.0]
        assert standing.is_cost == (False, False, True)


def test_an_epoch_that_is_reported_anew_takes_the_place_of_the_old() -> None:
    stopping = filled()
    start(stopping, "again")
    for epoch, fid in ((0, 9.0), (2, 8.0), (0, 7.0)):
        stopping.on_report("again", report(fid, epoch=epoch))
    assert stopping._arrivals[0]["again"][0] == 7.0 and "again" not in stopping._arrivals[1]


def test_a_log_gives_back_the_same_decisions_whatever_follows() -> None:
    """The same events in the same order, decided anew; the trial that a break left to be stopped is known."""
    rng, live, events, decisions = np.random.default_rng(0), make(), [], []
    for number in range(30):
        trial_id, told = f"t{number}", report(float(rng.uniform(5, 50)), vendi=float(rng.uniform(1, 6)))
        start(live, trial_id)
        decisions.append(live.decide(trial_id, told))
        live.on_report(trial_id, told)
        end = decisions[-1] or TrialEnd.completed()
        events.append((trial_id, told, end))
        live.on_end(trial_id, end)
    assert {end.kind for end in decisions if end} == {"stopped"} and None in decisions[5:]
    again = make()
    for trial_id, told, end in events:
        start(again, trial_id)
        again.on_report(trial_id, told)
        assert again.undone() == ({} if end.kind == "completed" else {trial_id: end})
        again.on_end(trial_id, end)
        assert again.undone() == {}
    assert again.decide(start(again, "next"), report(20.0)) == live.decide(start(live, "next"), report(20.0))


def test_a_trial_does_not_go_on_for_having_run_alone_but_a_strategy_does_for_being_quick() -> None:
    """Seconds are a strategy's, the median over its trials at the rung."""
    stopping = RuleStopping(STOPPING_RULES["hypervolume"], LADDER, (*OBJECTIVES, Objective("epoch_s", "min")), eta=3)
    for number in range(4):
        start(stopping, f"t{number}", "lora")
        stopping.on_report(f"t{number}", report(10.0 + number, vendi=3.0 + number, epoch_s=20.0 + number))
        stopping.on_end(f"t{number}", TrialEnd.completed())
    stopping.on_end(start(stopping, "quick", "bitfit"), TrialEnd.completed())
    beaten = report(12.0, vendi=3.5, epoch_s=5.0)
    assert stopping.decide(start(stopping, "alone", "lora"), beaten) is not None
    assert stopping.decide("quick", beaten) is None


def test_metrics_have_names_of_their_own_at_rungs_and_costs_have_not() -> None:
    assert [rung_name(objective) for objective in OBJECTIVES] == [
        "early_fid_mini",
        "early_vendi_mini",
        "trainable_parameters",
    ]
