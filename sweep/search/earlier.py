"""What a search takes over from earlier sweeps: results as observations, configurations as proposals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from analysis.front.pareto import Objective
from sweep.search.plan import OF_EARLIER, STRATEGY, Distributions, Values
from sweep.trials.earlier import EarlierSweep

MOST_PROPOSED: Final = 4
"""Configurations of sweeps of other data or evaluation that are tried, after each strategy's first trial and once each, so
that what they say fades as this sweep's own results come in."""


def observations(
    sweep: EarlierSweep,
    objectives: Sequence[Objective],
    *,
    spaces: Mapping[str, Distributions],
    choice: Callable[[FixedTrial], Mapping[str, Any]],
) -> Iterator[tuple[FrozenTrial, Mapping[str, Any]]]:
    """The results of a sweep of the same data and evaluation, each as Optuna's trial and with its metrics.

    A trial whose configuration this search does not draw, such as one of another strategy, is left out.

    Args:
        sweep: the earlier one.
        objectives: of this search.
        spaces: by strategy, what its parameters are drawn from.
        choice: what this search's space makes of parameters.
    """
    for trial in () if sweep.differs else sweep.trials:
        params = _drawn_here(trial["params"], spaces)
        if params is None or not _is(trial["choice"], params, choice):
            continue
        yield (
            create_trial(
                state=TrialState.COMPLETE,
                values=[float(trial["metrics"][objective.name]) for objective in objectives],
                params=dict(params),
                distributions={STRATEGY: CategoricalDistribution(tuple(spaces)), **spaces[params[STRATEGY]]},
                user_attrs={OF_EARLIER: sweep.folder},
            ),
            trial["metrics"],
        )


def proposals(sweeps: Sequence[EarlierSweep], spaces: Mapping[str, Distributions]) -> list[Values]:
    """Configurations of the fronts of sweeps of other data or evaluation, the sweeps' in turn, at most `MOST_PROPOSED`.

    Of each, strategy and what lies in this search's space, by Optuna's names; the sampler chooses the rest.

    Args:
        sweeps: earlier ones.
        spaces: by strategy, what its parameters are drawn from.
    """
    fronts = [[_proposed(trial["params"], spaces) for trial in sweep.trials] for sweep in sweeps if sweep.differs]
    in_turn = (values for together in itertools.zip_longest(*fronts) for values in together if values)
    distinct = {json.dumps(values, sort_keys=True): values for values in in_turn}
    return list(distinct.values())[:MOST_PROPOSED]


def _proposed(params: Values, spaces: Mapping[str, Distributions]) -> Values | None:
    strategy = str(params.get(STRATEGY))
    if strategy not in spaces:
        return None
    fitting = {
        name: params[name]
        for name, distribution in spaces[strategy].items()
        if name in params and _holds(distribution, params[name])
    }
    return {STRATEGY: strategy, **fitting}


def _drawn_here(params: Values, spaces: Mapping[str, Distributions]) -> Values | None:
    """The parameters that this search draws for a strategy too, where it could have drawn them."""
    fitting = _proposed(params, spaces)
    if fitting is None or fitting.keys() - {STRATEGY} != spaces[fitting[STRATEGY]].keys():
        return None
    return fitting


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False


def _is(chosen: Mapping[str, Any], params: Values, choice: Callable[[FixedTrial], Mapping[str, Any]]) -> bool:
    """Whether parameters mean here what they meant there: what is fixed beside them may be another."""
    here = choice(FixedTrial(dict(params)))
    return json.dumps(here, sort_keys=True) == json.dumps(chosen, sort_keys=True)
