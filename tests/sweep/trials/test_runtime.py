"""Ray itself, and what its machine must have."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from sweep.config import ComputeConfig, ConfigError
from sweep.trials.runtime import require_gpus


@pytest.mark.parametrize(("available", "enough"), [(0, False), (1, False), (2, True), (8, True)])
def test_a_trial_must_find_gpus_beside_the_evaluation(available: int, enough: bool) -> None:
    compute = ComputeConfig(gpus_per_worker=0.5, workers_per_trial=2, evaluation_gpus=0.25, evaluation_actors=2)
    said = f"but got 1 for a trial and 0.5 for evaluation where there are {available}"
    with nullcontext() if enough else pytest.raises(ConfigError, match=said):
        require_gpus(compute, available)
