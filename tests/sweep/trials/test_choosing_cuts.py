"""What chooses among the smaller adapters of a sweep's trainings."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from prepared_sweeps import prepared_sweep

from sweep.config import SweepConfig
from sweep.engine import _trial_context
from trainables.datasets.store import PreparedDataset


@pytest.mark.slow
def test_a_trial_chooses_by_the_objectives_of_its_sweep_in_whatever_process(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    config = SweepConfig(objectives=("fid", "trainable_parameters"))
    choose = pickle.loads(pickle.dumps(_trial_context(prepared_sweep(config, dataset, tmp_path)).choose_cut))
    whole, smallest = tmp_path / "trials" / "a", tmp_path / "trials" / "a-rank1"
    others = {"rank2": {"trainable_parameters": 200}}
    for fid, chosen in ((20.0, None), (19.0, "rank2")):
        scored = {
            whole: {"trainable_parameters": 400, "fid_mini": fid, "vendi_mini": 3.0},
            smallest: {"trainable_parameters": 100, "fid_mini": 20.0, "vendi_mini": 2.0},
        }
        assert choose(scored, others) == chosen
