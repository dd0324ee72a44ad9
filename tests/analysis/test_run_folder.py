"""The reader of run directories: adapters, completed trials, and which way of a column is better."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.front.objectives import column_direction, objective_directions
from analysis.front.pareto import Front, Objective
from analysis.run_folder import RunFolder

TRIALS = pd.DataFrame(
    {
        "trial_id": ["a", "b"],
        "status": ["completed", "failed"],
        "strategy": ["lora", "unet"],
        "fid_mini": [1.0, 2.0],
        "vendi_rad_dino/Edema": [1.0, 2.0],
        "epoch_s": [1.0, 2.0],
        "loss": [1.0, 2.0],
        "mine": [1.0, 2.0],
    }
)
RUN = RunFolder(
    folder=Path("run"), trials=TRIALS, front=Front(objectives=(Objective("mine", "max"),), points=()), config={}
)


@pytest.mark.parametrize(
    ("column", "direction"),
    [
        ("fid_mini", "min"),
        ("vendi_rad_dino", "max"),
        ("kid_xrv-mimic_nb/Lung Opacity", "min"),
        ("epoch_s", "min"),
        ("images_per_s", "max"),
        ("loss", None),
        ("fid_nowhere", None),
        ("early_kid_mini", None),
        ("param/lr", None),
    ],
)
def test_metrics_of_an_extractor_and_costs_have_a_direction(column: str, direction: str | None) -> None:
    assert column_direction(column) == direction


def test_objectives_are_metrics_and_costs() -> None:
    better = {"fid": "min", "kid": "min", "vendi": "max", "precision": "max", "recall": "max"}
    better |= {"trainable_parameters": "min", "epoch_s": "min", "peak_memory_gib": "min", "images_per_s": "max"}
    directions = objective_directions()
    assert {name: directions[name] for name in better} == better
    assert not {"loss", "lr", "fid_mini"} & directions.keys()


def test_one_can_pick_by_objectives_metrics_and_costs() -> None:
    assert RUN.directed() == ["fid_mini", "vendi_rad_dino/Edema", "epoch_s", "mine"]
    assert RUN.direction("mine") == "max"


def test_what_a_run_holds_of_its_trials() -> None:
    assert list(RUN.completed()["trial_id"]) == ["a"]
    assert RUN.adapter("a") == Path("run/trials/a/adapter")
    assert RUN.results.empty and RUN.baseline == {}


@pytest.mark.parametrize("trial_id", ["../a", "/etc", "a/b", "", ".hidden", "a\nb"])
def test_an_identity_that_would_lead_elsewhere_is_refused(tmp_path: Path, trial_id: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    Front(objectives=(), points=()).write(tmp_path / "pareto.json")
    good = pd.DataFrame({"trial_id": ["a", "a-rank2"], "cut_of": [None, "a"], "status": "completed"})
    good.to_parquet(tmp_path / "trials.parquet")
    assert len(RunFolder.open(tmp_path).trials) == 2
    for column in ("trial_id", "cut_of"):
        good.assign(**{column: ["a", trial_id]}).to_parquet(tmp_path / "trials.parquet")
        with pytest.raises(ValueError, match=r"`trial_id` must be letters, digits, .* but got"):
            RunFolder.open(tmp_path)
