"""Which finalists were evaluated last: a matter of what their files say, also where nothing was left to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from analysis.final_scores import read_finalists
from analysis.front.pareto import Front
from analysis.run_folder import RunFolder
from sweep.config import DataConfig, SweepConfig
from sweep.final.bench import Finalist, Workbench
from sweep.final.runner import FinalEvaluation
from sweep.final.settings import FinalSettings
from sweep.final.study import Study, StudyResult
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset

DATA = DataConfig(source="phantom", num_patients=60, resolution_px=64, seed=2)
FEW = FinalSettings(images_per_condition=5)
MANY = replace(FEW, images_per_condition=6)
STUDY = Study(
    run=lambda bench, finalist: StudyResult(values={"one": 1.0}), title="one", splits="none", of=lambda finalist: True
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    write_dataset(PhantomSource(num_patients=60, resolution_px=64, seed=2), tmp_path / "cache" / "dataset")
    return RunFolder(
        folder=tmp_path,
        front=Front(objectives=(), points=()),
        trials=pd.DataFrame(),
        config=SweepConfig(data=DATA).model_dump(mode="json"),
    )


@pytest.mark.slow
def test_the_last_series_is_that_of_the_last_evaluation_even_if_all_was_known(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.final.runner.STUDIES", {"one": STUDY})

    def evaluate(trial_id: str, settings: FinalSettings) -> tuple[list[str], tuple[str, ...]]:
        folder = run.folder / "evaluation" / trial_id
        evaluated = Finalist(trial_id=trial_id, strategy="none", adapter=None, seed=0, trains=(), folder=folder)
        FinalEvaluation(Workbench(run, settings), Console(quiet=True))._study(evaluated, ["one"])
        comparable = read_finalists(run.folder)
        return [finalist.trial_id for finalist in comparable.finalists], comparable.left_out

    assert evaluate("a1", MANY) == (["a1"], ())
    assert evaluate("b2", FEW) == (["b2"], ("a1",))
    assert evaluate("a1", MANY) == (["a1"], ("b2",))
    before = (run.folder / "evaluation" / "a1" / "scores.json").read_bytes()
    assert evaluate("a1", MANY) == (["a1"], ("b2",))
    assert (run.folder / "evaluation" / "a1" / "scores.json").read_bytes() == before
