"""Whether trials are compiled is a setting of the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.config import ComputeConfig
from sweep.trials.tuner import SweepContext
from trainables.settings import TrainingConfig


@pytest.mark.parametrize(("compute", "compiler"), [(ComputeConfig(), None), (ComputeConfig(compile=True), "inductor")])
def test_trials_are_compiled_where_that_is_asked_for(
    compute: ComputeConfig, compiler: str | None, tmp_path: Path
) -> None:
    context = SweepContext(
        base="mini",
        dataset=tmp_path,
        out=tmp_path,
        seed=0,
        objectives=("fid_mini",),
        training=TrainingConfig(),
        compute=compute,
    )
    choice = {"strategy": {"name": "lora"}, "lr": 1e-3, "batch_size": 8}
    assert context.spec("first", choice).compiler == compiler
