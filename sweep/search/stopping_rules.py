"""The rules by which a trial is stopped at a rung. One function each, one line in the table.

They know neither trials nor strategies: a rule sees the values of one rung, of which every one was measured after as many
epochs and with as many films, and says why the trial that has just arrived is to be stopped, or None where it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.front.hypervolume import MARGIN, hypervolume, hypervolume_gain
from analysis.front.pareto import Direction, pareto_mask

LEAST_GAIN: Final = 0.002
"""Share of a rung's hypervolume that a trial must add to it to go on."""
BONUS: Final = 0.5
"""Standard errors by which a measured value is taken for better than it is."""
FENCE: Final = 1.5
"""Interquartile ranges above the upper quartile (Tukey 1977) beyond which a metric adds nothing: a model that has diverged
would stretch the space. A quantile would give the worst of few trials nothing to gain, however good its other metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A trial among those that reached the rung before it; every objective is to be minimised, costs are logarithms.

    Attributes:
        values: float[m], the trial's values.
        errors: float[m], their standard errors; 0 for what is known exactly.
        others: float[n, m], n >= 1, the others' values.
        is_cost: of the m objectives, which are costs.
        eta: one in so many goes on where a rule counts.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    others: NDArray[np.float64]
    is_cost: tuple[bool, ...]
    eta: int

    def all(self) -> NDArray[np.float64]:
        """float[n + 1, m], the others' values and the trial's own as the last."""
        return np.vstack([self.others, self.values])


StoppingRule = Callable[[Standing], str | None]
"""Why the trial is stopped, for the records and the user; None: it goes on."""


def by_hypervolume(standing: Standing) -> str | None:
    """Stop what would add too little to the hypervolume of the rung, even if its metrics were luckier by half an error.

    Costs enter as they are: a cheap strategy does not go on for its cheapness alone, nor is an expensive one stopped for
    its price where it shows a quality that nothing else does.
    """
    directions: list[Direction] = ["min"] * len(standing.values)
    bound = reference_point(standing.all(), standing.is_cost)
    hopeful = standing.values - BONUS * standing.errors
    gain = hypervolume_gain(hopeful, standing.others, directions, bound)
    whole = hypervolume(standing.others, directions, bound)
    if gain >= LEAST_GAIN * whole:
        return None
    return (
        f"would add {gain / whole:.2%} to the hypervolume of the {len(standing.others)} trials before it, and less than "
        f"{LEAST_GAIN:.1%} does not go on"
    )


def reference_point(values: NDArray[np.float64], is_cost: Sequence[bool]) -> NDArray[np.float64]:
    """The worst of each objective, moved outwards; of metrics without outliers, as no cost is a mistake.

    Args:
        values: float[n, m], n >= 1, finite, all to be minimised.
        is_cost: of the m objectives, which are costs.

    Returns:
        float[m].
    """
    worst, (lower, upper) = values.max(axis=0), np.quantile(values, [0.25, 0.75], axis=0)
    beyond = worst + MARGIN * np.maximum(worst - values.min(axis=0), 1e-9)
    fence = upper + FENCE * np.maximum(upper - lower, 1e-9)
    point: NDArray[np.float64] = np.where(is_cost, beyond, np.minimum(beyond, fence))
    return point


def by_halving(standing: Standing) -> str | None:
    """Let one in `eta` of the rung go on, by non-dominated rank; of one rank, those in emptier regions first.

    Source:
        Asynchronous successive halving: Li et al. 2020; ranks and crowding: Deb et al. 2002, sections III.A and III.B.
    """
    values = standing.all()
    layers = non_dominated_ranks(values)
    same = layers == layers[-1]
    crowding = crowding_distances(values[same])
    better = int((layers < layers[-1]).sum() + (crowding[:-1] > crowding[-1]).sum())
    return _beyond(better, len(values), standing.eta, "by non-dominated rank")


def by_first_objective(standing: Standing) -> str | None:
    """Let one in `eta` of the rung go on by the first objective alone.

    Source:
        Asynchronous successive halving: Li et al. 2020.
    """
    better = int((standing.others[:, 0] < standing.values[0]).sum())
    return _beyond(better, len(standing.others) + 1, standing.eta, "by the first objective")


def _beyond(better: int, num: int, eta: int, how: str) -> str | None:
    places = max(1, num // eta)
    return None if better < places else f"ranks {better + 1} of {num} {how}, and {places} may go on"


def non_dominated_ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rank of each row: how often the front must be taken away until the row is on it; all objectives minimised.

    Args:
        values: float[n, m], finite.

    Returns:
        int64[n], 0 the front.
    """
    ranks = np.full(len(values), -1, np.int64)
    for rank in range(len(values)):
        left = np.flatnonzero(ranks < 0)
        ranks[left[pareto_mask(values[left], ["min"] * values.shape[1])]] = rank
        if (ranks >= 0).all():
            break
    return ranks


def crowding_distances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far apart the neighbours of each row are, summed over objectives as shares of their ranges.

    Args:
        values: float[n, m].

    Returns:
        float[n], infinite at the ends; larger in emptier regions.

    Source:
        Deb et al. 2002, section III.B.
    """
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distances[order[[0, -1]]] = np.inf
        if spread > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distances


def by_nothing(standing: Standing) -> None:
    """Stop no trial."""


NO_STOPS: Final = "none"
"""The trial scheduler under which trials are not even evaluated before their end."""
GAIN: Final = "gain"
"""The trial scheduler that weighs all that the search knows, not one rung: it is no rule of this table."""
STOPPING_RULES: Final[Mapping[str, StoppingRule]] = {
    "hypervolume": by_hypervolume,
    "halving": by_halving,
    "asha": by_first_objective,
    NO_STOPS: by_nothing,
}
"""By the name of the trial scheduler."""
TRIAL_SCHEDULERS: Final = (GAIN, *STOPPING_RULES)
"""All their names."""
