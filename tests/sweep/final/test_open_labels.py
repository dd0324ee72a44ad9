"""Films with a finding that is neither there nor absent: no classifier is trained on them, and none is judged by them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from stand_ins import chexpert

from analysis.front.pareto import Front
from analysis.run_folder import RunFolder
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final.bench import Workbench
from sweep.final.encoders import _agreement_values
from sweep.final.quality import utility
from sweep.final.runner import base_of
from sweep.final.settings import FinalSettings
from trainables.datasets.base import SourceOptions
from trainables.datasets.chexpert import CheXpertSource
from trainables.datasets.rules import LabelRules
from trainables.datasets.writing import write_dataset

SETTINGS = FinalSettings(images_per_condition=40, alignment_epochs=1, utility_epochs=1, utility_seeds=2)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    chexpert(tmp_path / "chexpert", 300)
    conditions = ("Edema", "Cardiomegaly", "Pleural Effusion", "No Finding")
    options = SourceOptions(root=tmp_path / "chexpert", conditions=conditions, rules=LabelRules(uncertain="ignore"))
    write_dataset(CheXpertSource.create(options), tmp_path / "prepared")
    config = SweepConfig(
        data=DataConfig(source="prepared", path=tmp_path / "prepared"),
        evaluation=EvaluationConfig(num_steps=1, guidance_scale=1.0),
    )
    run = RunFolder(
        folder=tmp_path / "run",
        front=Front(objectives=(), points=()),
        trials=pd.DataFrame(),
        config=config.model_dump(mode="json"),
    )
    return Workbench(run, SETTINGS)


@pytest.mark.slow
def test_utility_and_its_subgroups_are_of_the_films_whose_labels_are_known(bench: Workbench) -> None:
    test, plan = bench.splits["test"], bench.plans["train"]
    open_ = {split: [bool(findings) for findings in bench.splits[split].unknown] for split in ("train", "test")}
    assert any(open_["test"]) and any(open_["train"][row] for row in plan.rows)
    result = utility(bench, base_of(bench.run, 0))
    known = [sex for sex, left in zip(test.sexes, open_["test"], strict=True) if not left]
    too_few = result.details["subgroups"]["too_few"]
    assert {name: too_few[f"sex {name}"]["films"] for name in ("female", "male")} == {
        "female": known.count("F"),
        "male": known.count("M"),
    }
    trained_on = sum(not open_["train"][row] for row in plan.rows)
    assert result.values["utility_num_images/real"] == result.values["utility_num_images/synthetic"] == trained_on


@pytest.mark.slow
def test_the_autoencoder_is_judged_by_them_too(bench: Workbench) -> None:
    rows = bench.plans["test"].rows
    films = bench.splits["test"].images(rows)
    values = _agreement_values(bench, films, films)
    known = sum(not bench.splits["test"].unknown[row] for row in rows)
    assert values["vae_agreement"] == 1
    assert {value for name, value in values.items() if name.startswith("vae_num_films")} == {known} != {len(rows)}
