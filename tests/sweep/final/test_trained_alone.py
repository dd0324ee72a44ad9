"""Finalists of a training of every rank, trained at their rank alone: they are what a LoRA trial is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from analysis.final_scores import EVALUATION, read_finalists
from analysis.front.pareto import Front, Objective
from analysis.run_folder import RunFolder
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final import runner, seeds
from sweep.final.bench import Workbench
from sweep.final.runner import FinalEvaluation, finalist_of
from sweep.final.seeds import retrain, seeded, trained_alone, trial_spec
from sweep.final.settings import FinalSettings
from sweep.final.study import Study, StudyResult
from trainables.checkpoints import FOLDER, Checkpoint, read_checkpoint, write_checkpoint
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset
from trainables.epochs import DivergedError
from trainables.settings import TrainingConfig
from trainables.strategies.card import read_card
from trainables.trial import TrialSpec, fine_tune

pytestmark = pytest.mark.slow
DATA = DataConfig(source="phantom", num_patients=40, resolution_px=64, seed=2)
TRAINING = TrainingConfig(num_epochs=2, checkpoint_every_s=0)
"""With a checkpoint after the first epoch."""
QUIET = Console(quiet=True)
NESTED = {"name": "nested_lora", "rank": 4, "alpha": 8.0, "targets": "attention", "evaluated_ranks": [2]}
LORA = {"name": "lora", "rank": 2, "alpha": 4.0, "targets": "attention"}


class Unscored:
    """The evaluator of a training whose adapter is scored afterwards."""

    def evaluate(self, adapter: Path, share_done: float = 1.0) -> dict[str, float]:
        return {}


def trained(folder: Path, name: str, strategy: Mapping[str, Any]) -> None:
    spec = TrialSpec(
        base="mini",
        dataset=folder / "cache" / "dataset",
        folder=folder / "trials" / name,
        cache_folder=folder / "cache",
        seed=0,
        training=TRAINING,
        strategy=strategy,
        lr=1e-3,
        batch_size=16,
    )
    spec.folder.mkdir(parents=True)
    fine_tune(spec, Unscored(), lambda report: None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Of a run with a nested training, a cut of it, and a LoRA with the same settings as the cut."""
    folder = tmp_path_factory.mktemp("run")
    source = PhantomSource(num_patients=DATA.num_patients, resolution_px=64, seed=DATA.seed)
    write_dataset(source, folder / "cache" / "dataset")
    sampling = EvaluationConfig(images_per_condition=5, num_steps=2, guidance_scale=1.0)
    config = SweepConfig(data=DATA, training=TRAINING, evaluation=sampling)
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    trained(folder, "n1", NESTED)
    trained(folder, "a1", LORA)
    same = {
        "status": "completed",
        "reason": None,
        "fid_mini": 9.0,
        "vendi_mini": 2.0,
        "param/lr": 1e-3,
        "param/batch_size": 16,
    }
    rows = [("n1", "nested_lora", None), ("n1-rank2", "nested_lora", "n1"), ("a1", "lora", None)]
    table = [
        {"trial_id": name, "number": 0, "strategy": strategy, "cut_of": cut} | same for name, strategy, cut in rows
    ]
    pd.DataFrame(table).to_parquet(folder / "trials.parquet")
    Front(objectives=(Objective("fid_mini", "min"), Objective("vendi_mini", "max")), points=()).write(
        folder / "pareto.json"
    )
    return Workbench(RunFolder.open(folder), FinalSettings(images_per_condition=5))


def test_a_cut_trained_alone_is_the_lora_of_its_rank_to_the_bit_and_stands_beside_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed = Study(
        run=lambda bench, subject: StudyResult(values={"size": float(subject.trial_id.endswith("-alone"))}),
        title="weighed",
        of=lambda subject: subject.adapter is not None,
        splits="none",
        per_seed=True,
    )
    monkeypatch.setattr(runner, "STUDIES", {"weighed": weighed})
    evaluation = FinalEvaluation(bench, QUIET, trains_alone=True)
    summary = pd.read_parquet(evaluation.run(["n1-rank2", "a1"]))
    assert evaluation.num_failed == 0
    adapted = summary[summary["trial_id"] != "base"].set_index("trial_id")
    assert dict(adapted["strategy"]) == {"n1-rank2": "nested_lora", "n1-rank2-alone": "lora", "a1": "lora"}
    assert dict(adapted["test/size"]) == {"n1-rank2": 0.0, "n1-rank2-alone": 1.0, "a1": 0.0}
    folder = bench.run.folder
    alone = folder / EVALUATION / "n1-rank2-alone" / "seed-0" / "adapter"
    assert read_card(alone)["hyperparameters"] == read_card(bench.run.adapter("a1"))["hyperparameters"]
    adapters = (alone, bench.run.adapter("a1"), bench.run.adapter("n1-rank2"))
    ours, of_a_trial, cut = (bench.weights_of(adapter) for adapter in adapters)
    assert ours == of_a_trial != cut
    assert not list((folder / EVALUATION).rglob(FOLDER))
    shown = [finalist.trial_id for finalist in read_finalists(folder).finalists]
    assert shown == ["base", "a1", "n1-rank2", "n1-rank2-alone"]


def test_only_what_a_training_of_several_ranks_gave_is_trained_alone(bench: Workbench) -> None:
    lora, whole = (finalist_of(bench.run, name, 0) for name in ("a1", "n1"))
    with pytest.raises(ValueError, match=r"`--retrain` must .* of dylora or nested_lora, but got a1 of lora"):
        trained_alone(bench, [lora])
    (subject,) = trained_alone(bench, [lora, whole])
    spec = trial_spec(bench, subject, 3)
    assert spec.strategy == {**LORA, "rank": 4, "alpha": 8.0, "components": "unet"}
    assert (spec.seed, spec.folder) == (3, bench.run.folder / EVALUATION / "n1-alone" / "seed-3")


def keep(spec: TrialSpec) -> None:
    write_checkpoint(spec.folder, Checkpoint(tensors={"weights/a": torch.ones(1)}, facts={}))


@pytest.mark.parametrize(("error", "keeps"), [(DivergedError("NaN"), False), (OSError("disk"), True)])
def test_what_a_broken_retraining_kept_stays_only_where_it_may_go_on_from_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, error: Exception, keeps: bool
) -> None:
    def ends(spec: TrialSpec, *others: Any) -> None:
        keep(spec)
        raise error

    monkeypatch.setattr(seeds, "fine_tune", ends)
    finalist = finalist_of(bench.run, "a1", 0)
    with pytest.raises(type(error)):
        retrain(bench, finalist, 7)
    assert (read_checkpoint(trial_spec(bench, finalist, 7).folder) is not None) is keeps


def test_a_retraining_that_was_broken_off_after_its_export_keeps_nothing(bench: Workbench) -> None:
    finalist = finalist_of(bench.run, "a1", 0)
    spec, adapter = trial_spec(bench, finalist, 8), seeded(bench, finalist, 8).adapter
    assert adapter is not None
    adapter.mkdir(parents=True)
    keep(spec)
    retrain(bench, finalist, 8)
    assert read_checkpoint(spec.folder) is None
