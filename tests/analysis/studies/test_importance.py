"""Importance of hyperparameters: what a function depends on by construction comes first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.front.pareto import Objective
from analysis.studies.importance import importances

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"), Objective("epoch_s", "min"))


def _trials(num: int = 24) -> pd.DataFrame:
    """FID by the learning rate alone, Vendi score by the strategy alone, seconds the same for all."""
    rng = np.random.default_rng(0)
    rates, strategies = 10 ** rng.uniform(-4, -2, num), rng.choice(["lora", "unet"], num)
    return pd.DataFrame(
        {
            "trial_id": [str(index) for index in range(num)],
            "status": "completed",
            "strategy": strategies,
            "param/lr": rates,
            "param/batch_size": rng.choice([16, 32], num),
            "param/rank": np.where(strategies == "lora", 4.0, np.nan),
            "fid_mini": 10 * np.log10(rates) ** 2,
            "vendi_mini": (strategies == "unet") * 2.0 + 1,
            "epoch_s": 3.0,
        }
    )


@pytest.mark.slow
def test_what_an_objective_depends_on_comes_first() -> None:
    by_objective = importances(_trials(), OBJECTIVES)
    assert set(by_objective) == {"fid_mini", "vendi_mini"}
    assert next(iter(by_objective["fid_mini"])) == "lr" and by_objective["fid_mini"]["lr"] > 0.8
    assert next(iter(by_objective["vendi_mini"])) == "strategy" and by_objective["vendi_mini"]["strategy"] > 0.8
    for shares in by_objective.values():
        assert set(shares) == {"strategy", "lr", "batch_size"} and sum(shares.values()) == pytest.approx(1)


def test_few_trials_and_what_does_not_vary_say_nothing() -> None:
    assert importances(_trials(9), OBJECTIVES) == {}
    assert importances(_trials().assign(status="failed"), OBJECTIVES) == {}
    same = _trials().assign(strategy="lora", **{"param/lr": 1e-3, "param/batch_size": 16, "param/rank": 4.0})
    assert importances(same, OBJECTIVES) == {}
