"""Which trainings a recording consists of: quasi-random within each strategy, in an order whose beginnings are balanced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial
from scipy.stats.qmc import Sobol

from search_spaces import SearchSpace

STRATEGIES: Final = (
    "lora",
    "unet",
    "bitfit",
    "dora",
    "textual_inversion",
    "adalora",
    "unet+text_encoder",
    "norm",
    "dylora",
    "attention",
    "lora+text_encoder",
    "selora",
    "difffit",
    "dora+textual_inversion",
    "lora+textual_inversion",
)
"""What is recorded: everything of the mini space but what trains the autoencoder or repeats the whole U-Net."""
FURTHER_SEEDS: Final = (1, 2)
MOST_PARAMETERS: Final = 16
"""Parameters that a configuration has at most: coordinates of a point."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of one configuration.

    Attributes:
        strategy: its name.
        number: of the configuration among its strategy's, from 0.
        seed: of the training.
        choice: what the search space suggests: `strategy` with its fields, `lr`, `batch_size`.
        params: the same as Optuna names it, such as `lora/rank`.
    """

    strategy: str
    number: int
    seed: int
    choice: Mapping[str, Any]
    params: Mapping[str, Any]

    @property
    def config(self) -> str:
        """Name of the configuration, shared by its seeds."""
        return f"{self.strategy}-{self.number:02d}"

    @property
    def name(self) -> str:
        """Name of the training."""
        return f"{self.config}-seed{self.seed}"


class SobolSampler(optuna.samplers.BaseSampler):
    """Gives a study's trial of number n the n-th point of a scrambled Sobol sequence, a coordinate to each parameter.

    A power of two of points is balanced: of eight trials, one has its learning rate in each eighth of the range.

    Source: Sobol 1967; Owen 1998 (scrambling).
    """

    def __init__(self, num_points: int, rng: np.random.Generator) -> None:
        """Draw points; their beginning does not depend on how many there are."""
        sequence = Sobol(MOST_PARAMETERS, scramble=True, seed=rng)
        self._points: NDArray[np.float64] = sequence.random_base2(max(1, (num_points - 1).bit_length()))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameters: each is asked for when the space suggests it."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Likewise none."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value at the next coordinate of the trial's point; what has one choice only takes none."""
        used = sum(not distribution.single() for distribution in trial.distributions.values())
        return _value_at(float(self._points[trial.number, used]), param_distribution)


def _value_at(share: float, distribution: BaseDistribution) -> Any:
    """What lies at a share, in [0, 1), of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    if isinstance(distribution, FloatDistribution) and distribution.log:
        return distribution.low * (distribution.high / distribution.low) ** share
    raise ValueError(
        f"`distribution` must be categorical or log-uniform, but got {distribution}. Add it to `_value_at`."
    )


def configurations(space: SearchSpace, strategy: str, num: int, seed: int) -> list[Training]:
    """The first configurations of a strategy; more of them begin with the same ones.

    Args:
        space: suggests them.
        strategy: its name.
        num: how many.
        seed: of the scrambling.
    """
    rng = np.random.default_rng((seed, *strategy.encode()))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=SobolSampler(num, rng))
    suggest = partial(space, strategies=(strategy,))
    drawn = []
    for number in range(num):
        trial = study.ask()
        choice = suggest(trial)
        drawn.append(Training(strategy=strategy, number=number, seed=0, choice=choice, params=dict(trial.params)))
    return drawn


def trainings(
    space: SearchSpace, strategies: Sequence[str], *, num_configs: int, num_repeated: int, seed: int
) -> list[Training]:
    """All trainings of a recording, in the order in which they are made.

    The strategies take turns. After half of the configurations, trainings with further seeds are spread among the rest.

    Args:
        space: suggests the configurations.
        strategies: their names.
        num_configs: configurations of all strategies together.
        num_repeated: those of them that are trained with `FURTHER_SEEDS` too.
        seed: of the draws.
    """
    rounds = -(-num_configs // len(strategies))
    drawn = [configurations(space, strategy, rounds, seed) for strategy in strategies]
    singles = [training for turn in zip(*drawn, strict=True) for training in turn][:num_configs]
    half = len(singles) // 2
    chosen = list(_spread(singles[:half], len(strategies), num_repeated))
    further = [replace(training, seed=further_seed) for further_seed in FURTHER_SEEDS for training in chosen]
    return [*singles[:half], *_interleaved(singles[half:], further)]


def _spread(singles: Sequence[Training], num_strategies: int, num: int) -> Iterator[Training]:
    """As many of them, of every strategy as many and of different rounds; fewer where there are not so many."""
    rounds = len(singles) // num_strategies
    for place in range(min(num, rounds * num_strategies)):
        turn, strategy = divmod(place, num_strategies)
        yield singles[strategy + num_strategies * ((strategy + turn) % rounds)]


def _interleaved(first: Sequence[Training], second: Sequence[Training]) -> list[Training]:
    """Both in their own order, evenly mixed."""
    placed = [((place + 0.5) / len(part), training) for part in (first, second) for place, training in enumerate(part)]
    return [training for _, training in sorted(placed, key=lambda entry: entry[0])]
