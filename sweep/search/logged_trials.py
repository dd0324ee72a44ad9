"""Trials of the event log for Optuna's study in memory, by their thousands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState


class LoggedTrial(FrozenTrial):
    """A trial that is quick to copy, as a study copies each that it is given.

    Distributions, and the numbers and strings that a log has for parameters and attributes, are never changed: a copy
    shares them, and has mappings of its own. It is one of Optuna's own trials, so that all that is read from the study is.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        """One of Optuna's own trials."""
        return FrozenTrial(
            number=self.number,
            state=self.state,
            value=None,
            values=self.values,
            datetime_start=self.datetime_start,
            datetime_complete=self.datetime_complete,
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs=dict(self.user_attrs),
            system_attrs=dict(self.system_attrs),
            intermediate_values=dict(self.intermediate_values),
            trial_id=self._trial_id,
        )


def logged_trial(drawn: Mapping[str, Any], fate: Mapping[str, Any]) -> LoggedTrial:
    """A trial as Optuna's `create_trial` makes it, but not checked yet: a study checks what is added to it.

    Args:
        drawn: its `params`, and the `distributions` that they were drawn from in Optuna's JSON.
        fate: `state`, `values`, `constraints` and `user_attrs`.
    """
    when, state = datetime.now(), fate["state"]
    trial = LoggedTrial(
        number=-1,
        state=state,
        value=None,
        values=fate["values"],
        datetime_start=when if state != TrialState.WAITING else None,
        datetime_complete=when if state.is_finished() else None,
        params=dict(drawn["params"]),
        distributions={name: _of_json(text) for name, text in drawn["distributions"].items()},
        user_attrs=dict(fate["user_attrs"]),
        system_attrs={},
        intermediate_values={},
        trial_id=-1,
    )
    for name, value in fate["constraints"].items():
        trial.set_constraint(name, value)
    return trial


@lru_cache(maxsize=1024)
def _of_json(text: str) -> BaseDistribution:
    """Trials have a few distributions between them; a log names each for every trial."""
    return json_to_distribution(text)
