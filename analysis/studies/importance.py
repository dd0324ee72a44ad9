"""Which hyperparameters an objective depends on, over the trials of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.front.pareto import PARAMETER_PREFIX, Objective
from analysis.front.statuses import COMPLETED, with_status

FEWEST_TRIALS: Final = 10
"""Trials from which on a forest has something to split."""
STRATEGY: Final = "strategy"
NUM_TREES: Final = 64


def importances(trials: pd.DataFrame, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
    """The share of each objective's variation over completed trials that a hyperparameter explains by itself.

    Hyperparameters that all of these trials have are compared: the strategy, the learning rate, the batch size, and where
    there is one strategy its own. Objectives and hyperparameters that do not vary are left out.

    Args:
        trials: one row a trial, with `strategy`, `param/...` and a column for each objective.
        objectives: of the sweep.

    Returns:
        By objective and hyperparameter, most important first, shares that add up to 1; empty with fewer than 10 trials.

    Source:
        Hutter et al. 2014 (functional ANOVA of a random forest), as Optuna has it.
    """
    done = with_status(trials, COMPLETED).dropna(subset=[objective.name for objective in objectives])
    columns = [str(name) for name in done.columns if str(name).startswith(PARAMETER_PREFIX) or name == STRATEGY]
    columns = [name for name in columns if name != f"{PARAMETER_PREFIX}{STRATEGY}"]
    shared = [name for name in columns if done[name].notna().all() and done[name].nunique() > 1]
    if len(done) < FEWEST_TRIALS or not shared:
        return {}
    varied = [objective.name for objective in objectives if done[objective.name].nunique() > 1]
    params = tuple((name, str(done[name].dtype), tuple(done[name].tolist())) for name in shared)
    return {name: dict(_shares(params, tuple(done[name].to_numpy(np.float64).tolist()))) for name in varied}


Column = tuple[str, str, tuple[Any, ...]]
"""Name, type and values of a hyperparameter."""


@lru_cache(maxsize=16)  # the report of a sweep and its run in MLflow want the same, which takes up to minutes
def _shares(columns: tuple[Column, ...], values: tuple[float, ...]) -> dict[str, float]:
    import optuna  # takes a second; most pages are of few trials
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    params = pd.DataFrame({name: pd.Series(settings, dtype=kind) for name, kind, settings in columns})
    names = {str(column): str(column).removeprefix(PARAMETER_PREFIX) for column in params}
    drawn = {name: _distribution(params[column]) for column, name in names.items()}
    study = optuna.create_study()
    for row, value in zip(params.rename(columns=names).to_dict("records"), values, strict=True):
        settings = {
            str(name): setting.item() if isinstance(setting, np.generic) else setting for name, setting in row.items()
        }
        study.add_trial(optuna.trial.create_trial(params=settings, distributions=drawn, value=float(value)))
    evaluator = FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=0)
    return {name: float(share) for name, share in get_param_importances(study, evaluator=evaluator).items()}


def _distribution(column: pd.Series) -> Any:
    """Numbers of many values by their range, on a logarithmic scale where all are positive; what else there is by its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not pd.api.types.is_float_dtype(column):
        return CategoricalDistribution(sorted(column.unique().tolist()))
    return FloatDistribution(float(column.min()), float(column.max()), log=bool(column.min() > 0))
