"""The trial scheduler that asks the front's model: a trial is stopped where its rest promises far less than another training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from analysis.front.pareto import Objective
from sweep.search.expected_gain import FrontModel
from sweep.search.history import Measured, Tried
from sweep.search.ladder import Ladder
from sweep.search.plan import SearchPlan
from sweep.search.stopping import TIMED, RuleStopping, Stopping
from sweep.search.stopping_rules import GAIN, STOPPING_RULES
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

PlanWith = Callable[[str, Mapping[str, Any]], SearchPlan]
"""The search's plan as it were if a trial had made a report that nobody has heard yet."""
LEAST_WORTH: Final = 0.1
"""How much the rest of a trial must promise for its cost, beside a new training. What is stopped has to be paid again, the
best of many estimates looks better than it is, and early values tell little: at a half, searches over the recorded curves lost
what the front needs; on synthetic curves a tenth took as few hours."""


class GainStopping(Stopping):
    """Decides at rungs by what a trial is expected to add to the front at its end.

    The model of the sampler `front` learns from all rungs and ends how every strategy goes on from a rung, and knows costs that
    are counted beforehand. A trial goes on where the hypervolume that it is expected to add, by the cost of what is left of its
    training, is at least a tenth of what the best new configuration would add besides by the cost of a whole one; or a random one,
    on the average, where no results lead the search sampler, as nobody would start the best one then. A strategy
    that was never trained to its end is uncertain, which makes it worth going on with; but nothing goes on for that alone until
    no more trials are left than there are such strategies. Beside `front`, which gives them the last trials, each strategy, a
    slow starter too, is trained to its end once.
    A log does not say who was told to go on, and what has arrived since must not change it: where a break kept a stop from
    the log, the trial goes on to its next rung.
    """

    def __init__(
        self, plan_with: PlanWith, ladder: Ladder, objectives: Sequence[Objective], *, num_epochs: int
    ) -> None:
        """No trial has reached a rung.

        Args:
            plan_with: tells what is known of the search.
            ladder: where trials are compared.
            objectives: as in a trial's final report.
            num_epochs: of a whole training.
        """
        super().__init__(ladder, objectives)
        self._plan_with, self._num_epochs = plan_with, num_epochs
        self._numbers: dict[str, int] = {}

    def on_start(self, suggestion: Suggestion) -> None:
        """Keep a trial's number too, by which the model knows it."""
        super().on_start(suggestion)
        self._numbers[suggestion.trial_id] = suggestion.number

    def decide(self, trial_id: str, metrics: Mapping[str, Any]) -> TrialEnd | None:
        """How a trial that reports this ends here; None: it goes on. Nothing is changed by the question."""
        rung = self._compared(trial_id, metrics)
        if rung is None:
            return None
        plan, number = self._plan_with(trial_id, metrics), self._numbers[trial_id]
        owed = plan.owed(without=number)
        if self._strategies[trial_id] in owed and len(owed) > plan.num_trials - plan.number:
            return None  # no later trial is left that could be trained to its end in this one's place
        worth = worth_of_rest(plan, number, metrics["epoch"] + 1, self._num_epochs)
        if worth >= LEAST_WORTH:
            return None
        rival = "the best new training" if plan.is_led else "a new training at random"
        return TrialEnd.stopped(
            f"after epoch {self.ladder.epochs[rung]}: its rest promises {worth:.2g} of what {rival} does by its cost, "
            f"below {LEAST_WORTH:g}",
            rung,
        )


def worth_of_rest(plan: SearchPlan, number: int, epochs: int, num_epochs: int) -> float:
    """The gain of a trial's rest by its cost, over what a new training would gain besides.

    Besides: a trial that shows what is good makes its neighbours promising too, and must not be stopped for them. The new
    training is the one that gains most by its cost or, where no results lead the search sampler, a random one: then what many
    of them are expected to gain counts by what they are expected to cost.

    Args:
        plan: with what the trial has reported.
        number: of the trial.
        epochs: that are behind it.
        num_epochs: of a whole training.

    Returns:
        A number in [0, inf]; infinite where no new training will begin or promises anything, or no rung tells of the objectives.
    """
    if plan.number >= plan.num_trials:
        return math.inf
    plan = with_shared_seconds(plan)
    trial = next(tried for tried in plan.history if tried.number == number)
    if not trial.measured:  # all objectives are costs, of which a rung tells nothing
        return math.inf
    model, rng = FrontModel.of(plan), np.random.default_rng((plan.seed, number))
    candidates = model.candidates(rng)
    if not candidates:
        return math.inf
    gains, prices = model.gains_beside(trial, candidates, rng)
    others = (gains / prices)[1:].max() if plan.is_led else gains[1:].sum() / prices[1:].sum()
    rest = gains[0] / prices[0] * num_epochs / (num_epochs - epochs)
    return float(rest / others) if others > 0 else math.inf


def with_shared_seconds(plan: SearchPlan) -> SearchPlan:
    """The plan in which a strategy's trials share, at each rung and at the end, the median of what was timed.

    As with the other trial schedulers: no trial goes on for having run alone. Those of earlier sweeps share among themselves.
    """
    timed = np.array([objective.name in TIMED for objective in plan.objectives])
    peers: dict[tuple[bool, str, float, bool], list[NDArray[np.float64]]] = defaultdict(list)
    for tried in plan.history:
        for measured in tried.measured:
            peers[_peers(tried, measured)].append(measured.values)
    medians = {key: np.median(values, axis=0) for key, values in peers.items()}

    def shared(tried: Tried, measured: Measured) -> Measured:
        return replace(measured, values=np.where(timed, medians[_peers(tried, measured)], measured.values))

    history = [replace(tried, measured=[shared(tried, each) for each in tried.measured]) for tried in plan.history]
    return replace(plan, history=history)


def _peers(tried: Tried, measured: Measured) -> tuple[bool, str, float, bool]:
    return tried.number < 0, tried.strategy, measured.epochs, bool(np.isfinite(measured.values).all())


def make_stopping(
    name: str, plan_with: PlanWith, ladder: Ladder, objectives: Sequence[Objective], *, eta: int, num_epochs: int
) -> Stopping:
    """What decides at rungs, by the name of the trial scheduler.

    Args:
        name: of the trial scheduler.
        plan_with: tells what is known of the search.
        ladder: where trials are compared.
        objectives: as in a trial's final report.
        eta: one in so many goes on where a rule counts.
        num_epochs: of a whole training.
    """
    if name == GAIN:
        return GainStopping(plan_with, ladder, objectives, num_epochs=num_epochs)
    return RuleStopping(STOPPING_RULES[name], ladder, objectives, eta=eta)
