"""Trials of the log in Optuna's study: the same as Optuna's own `create_trial` makes."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweep.search.logged_trials import logged_trial

DISTRIBUTIONS = {
    "strategy": CategoricalDistribution(["lora", "full"]),
    "lora/rank": IntDistribution(2, 64, log=True),
    "lora/lr": FloatDistribution(1e-5, 1e-2, log=True),
}
PARAMS = {"strategy": "lora", "lora/rank": 8, "lora/lr": 1e-3}
DRAWN = {
    "params": PARAMS,
    "distributions": {name: distribution_to_json(distribution) for name, distribution in DISTRIBUTIONS.items()},
}
FATES: list[dict[str, Any]] = [
    {"state": TrialState.COMPLETE, "values": [1.0, 2.0], "constraints": {}, "user_attrs": {"trial_id": "a"}},
    {
        "state": TrialState.PRUNED,
        "values": None,
        "constraints": {"works": 1.0},
        "user_attrs": {"reason": "b", "rung": 1},
    },
    {"state": TrialState.FAIL, "values": None, "constraints": {}, "user_attrs": {"reason": "lost"}},
    {"state": TrialState.RUNNING, "values": None, "constraints": {}, "user_attrs": {"trial_id": "d"}},
    {"state": TrialState.COMPLETE, "values": [0.5, 3.0], "constraints": {}, "user_attrs": {"trial_id": "e"}},
]


def study_of(trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials(trials)
    return study


def contents(study: optuna.Study) -> list[dict[str, Any]]:
    """All that Optuna keeps of each trial, save when it was made."""
    trials = study.get_trials(deepcopy=False)
    assert {type(trial) for trial in trials} == {FrozenTrial}
    assert [trial.datetime_complete is None for trial in trials] == [not trial.state.is_finished() for trial in trials]
    return [{name: value for name, value in vars(trial).items() if "datetime" not in name} for trial in trials]


def go_on(study: optuna.Study) -> None:
    """End what runs, with an attribute and a constraint more, and try another."""
    running = next(trial for trial in study.get_trials() if trial.state == TrialState.RUNNING)
    live = Trial(study, running._trial_id)
    live.set_user_attr("reason", "told")
    live.set_constraint("works", 1.0)
    study.tell(running.number, state=TrialState.PRUNED)
    study.enqueue_trial(PARAMS)
    asked = study.ask()
    asked.suggest_categorical("strategy", ["lora", "full"])
    study.tell(asked.number, [0.1, 0.2])


def test_a_study_holds_what_it_would_of_optunas_own_trials() -> None:
    logged = study_of([logged_trial(DRAWN, fate) for fate in FATES])
    created = study_of([create_trial(params=PARAMS, distributions=DISTRIBUTIONS, **fate) for fate in FATES])
    assert contents(logged) == contents(created) and len(contents(logged)) == len(FATES)
    go_on(logged)
    go_on(created)
    assert contents(logged) == contents(created) and len(contents(logged)) == len(FATES) + 1
    assert [trial.number for trial in logged.best_trials] == [trial.number for trial in created.best_trials]


def test_nothing_that_changes_is_shared_with_the_trial_that_was_given() -> None:
    given = logged_trial(DRAWN, FATES[3])
    study = study_of([given, given])
    before = dict(vars(given))
    first, second = study.get_trials(deepcopy=False)
    mappings = [name for name, value in before.items() if isinstance(value, dict)]
    for name in mappings:
        getattr(first, name)["another"] = 1
    assert len(mappings) == 5 and not any(
        "another" in getattr(trial, name) for name in mappings for trial in (second, given)
    )


@pytest.mark.parametrize(
    "params, fate, match",
    [
        (PARAMS | {"lora/rank": 100}, FATES[0], "lora/rank"),
        ({"strategy": "lora"}, FATES[0], "Inconsistent"),
        (PARAMS, FATES[0] | {"values": [1.0]}, "1 values"),
        (PARAMS, FATES[0] | {"values": None}, "values should be set"),
        (PARAMS, FATES[2] | {"values": [1.0, 2.0]}, "should be None"),
    ],
)
def test_the_study_refuses_what_it_would_of_optunas_own(
    params: dict[str, Any], fate: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        study_of([logged_trial({**DRAWN, "params": params}, fate)])
