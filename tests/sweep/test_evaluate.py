"""The full evaluation of finalists, small: what it leaves, what it keeps, and whether planted truths are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from counting_extractor import CountingExtractor
from planted_truths import Copying, Knowing, KnowsFilms, Mistaken
from rich.console import Console
from safetensors.torch import save_file
from small_sweep import invoke

from analysis.features.base import BATCH_SIZE
from analysis.films.labelled import LabelledImages, resize
from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.metrics import ms_ssim_diversity
from analysis.report import write_report
from analysis.report.__main__ import main as report_main
from analysis.run_folder import RunFolder
from sweep import evaluate, export
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final import bench as bench_module
from sweep.final import runner
from sweep.final.bench import Finalist, Workbench
from sweep.final.encoders import _pixel_values
from sweep.final.privacy import memorisation
from sweep.final.quality import alignment
from sweep.final.results import Scores
from sweep.final.runner import FinalEvaluation, finalist_of
from sweep.final.seeds import retrain, seeded, trial_spec
from sweep.final.settings import FinalSettings
from sweep.final.studies import STUDIES
from sweep.final.study import Study, StudyResult
from sweep.scoring.streaming import ComparedFilms
from trainables.datasets.phantom import PhantomSource, source
from trainables.datasets.writing import write_dataset
from trainables.settings import TrainingConfig
from trainables.strategies.card import read_card
from trainables.trial import TrialSpec, fine_tune

pytestmark = pytest.mark.slow
TRIAL = "a1"
STRATEGY = {"name": "bitfit+text_encoder"}
DATA = DataConfig(source="phantom", num_patients=60, resolution_px=64, seed=2)
SETTINGS = FinalSettings(
    images_per_condition=5, num_resamples=4, alignment_epochs=2, utility_epochs=1, utility_seeds=2, membership_films=4
)
QUIET = Console(quiet=True)
CUTS_OF = {"d1": None, "d1-rank2": "d1"}


class Unscored:
    """The evaluator of a training whose adapter is scored afterwards."""

    def evaluate(self, adapter: Path, share_done: float = 1.0) -> dict[str, float]:
        return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of one trial that was really trained, for one epoch."""
    folder = tmp_path_factory.mktemp("run")
    dataset = write_dataset(
        PhantomSource(num_patients=DATA.num_patients, resolution_px=64, seed=DATA.seed), folder / "cache" / "dataset"
    )
    config = SweepConfig(
        data=DATA,
        training=TrainingConfig(num_epochs=1),
        evaluation=EvaluationConfig(images_per_condition=5, num_steps=2, guidance_scale=1.0),
    )
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    spec = TrialSpec(
        base="mini",
        dataset=dataset.folder,
        folder=folder / "trials" / TRIAL,
        cache_folder=folder / "cache",
        seed=0,
        training=config.training,
        strategy=STRATEGY,
        lr=1e-3,
        batch_size=16,
    )
    spec.folder.mkdir(parents=True)
    fine_tune(spec, Unscored(), lambda report: None)
    row = {"trial_id": TRIAL, "number": 0, "status": "completed", "reason": None, "strategy": STRATEGY["name"]}
    figures = {"fid_mini": 9.0, "fid_mini/Edema": 11.0, "vendi_mini": 2.0, "param/lr": 1e-3, "param/batch_size": 16}
    pd.DataFrame([row | figures]).to_parquet(folder / "trials.parquet")
    point = FrontPoint(
        trial_id=TRIAL, strategy=STRATEGY["name"], values={"fid_mini": 9.0, "vendi_mini": 2.0}, params={}, knee=True
    )
    objectives = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
    Front(objectives=objectives, points=(point,)).write(folder / "pareto.json")
    return folder


def bench_of(folder: Path, settings: FinalSettings = SETTINGS, kind: type[Workbench] = Workbench) -> Workbench:
    bench = kind(RunFolder.open(folder), settings)
    bench.extractor = CountingExtractor()  # type: ignore[misc]
    return bench


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Workbench:
    """The bench that evaluated the trial, with one more training."""
    bench = bench_of(folder)
    evaluation = FinalEvaluation(bench, QUIET, num_seeds=2)
    evaluation.run([TRIAL])
    assert evaluation.num_failed == 0, [path.read_text() for path in (folder / "evaluation").glob("*/scores.json")]
    return bench


@pytest.fixture(scope="module")
def scores(evaluated: Workbench, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "evaluation" / TRIAL / "scores.json").read_text())
    return record


def test_every_study_is_done_on_test_patients(scores: dict[str, Any], evaluated: Workbench) -> None:
    expected = {"fidelity", "alignment", "utility", "memorisation", "membership", "text_probe"}
    assert set(scores["studies"]) == expected
    splits = {name: study["inputs"]["splits"] for name, study in scores["studies"].items()}
    assert splits["fidelity"] == STUDIES["fidelity"].splits and "validation" in splits["memorisation"]
    listed = scores["studies"]["fidelity"]["details"]["figures"]
    figures = {(figure["metric"], figure["condition"]): figure for figure in listed}
    plan = evaluated.plans["test"]
    assert {"view AP", "sex male"} & scores["studies"]["utility"]["details"]["subgroups"]["too_few"].keys()
    assert len(np.load(evaluated.run.folder / "evaluation" / TRIAL / "films.npz")["generated"]) == len(plan)
    assert 0 < scores["studies"]["alignment"]["values"]["num_aligned"] <= len(plan)
    assert figures["fid", None]["num_generated"] == figures["fid", None]["num_reference"] == len(plan)
    assert figures["fid", None]["weights_hash"] == evaluated.extractor.weights_hash
    for number, condition in enumerate(evaluated.conditions):
        shown = plan.table(evaluated.conditions)[:, number].sum()
        assert (
            figures["fid", condition]["num_reference"] == shown <= len(evaluated.splits["test"].indices_with(condition))
        )


def test_the_classifier_is_trained_once_and_named(scores: dict[str, Any], folder: Path) -> None:
    (card,) = (folder / "evaluation" / "classifiers").glob("*/classifier.json")
    kept = json.loads(card.read_text())["weights_hash"]
    assert scores["studies"]["alignment"]["details"]["classifier"]["weights_hash"] == kept


def test_a_classifier_is_not_taken_for_one_that_was_trained_otherwise(evaluated: Workbench) -> None:
    start = evaluated.run.folder / "start.safetensors"
    save_file(evaluated.classifier.network.state_dict(), start)
    others = [replace(evaluated.settings, alignment_epochs=1), replace(evaluated.settings, initial_weights=start)]
    classifiers = [Workbench(evaluated.run, settings).classifier for settings in (evaluated.settings, *others)]
    hashes = [each.weights_hash for each in classifiers]
    assert hashes[0] == evaluated.classifier.weights_hash and len(set(hashes)) == 3


def test_the_autoencoder_of_the_base_is_studied_with_the_phantoms_own_marks(evaluated: Workbench, folder: Path) -> None:
    base = json.loads((folder / "evaluation" / "base" / "scores.json").read_text())
    study = base["studies"]["autoencoder"]
    assert study["status"] == "completed" and study["details"]["num_marks"] > 0
    assert 0 < study["values"]["vae_rmse"] < 0.2 and "vae_cnr_kept" in study["values"]


def test_membership_of_the_base_stands_beside_the_adapters(
    scores: dict[str, Any], evaluated: Workbench, folder: Path
) -> None:
    base = json.loads((folder / "evaluation" / "base" / "scores.json").read_text())
    both = [record["studies"]["membership"]["values"] for record in (base, scores)]
    assert both[0]["membership_loss_train"] != both[1]["membership_loss_train"]
    films = {name: evaluated.splits[name] for name in ("train", "test")}
    patients = [
        {data.patient_ids[row] for row in np.random.default_rng(0).permutation(len(data))[:4]}
        for data in films.values()
    ]
    for values in both:
        assert values["membership_num"] == 8 and values["membership_num_patients"] == sum(map(len, patients))
    row = write_report(folder).read_text().split("ratios near 1 are harmless")[1].split("</table>")[0]
    assert "<code>base</code>" in row and f"<code>{TRIAL}</code>" in row


def test_diversity_is_within_conditions(scores: dict[str, Any], evaluated: Workbench) -> None:
    values, plan = scores["studies"]["fidelity"]["values"], evaluated.plans["test"]
    for key in ("ms_ssim", "ms_ssim_real"):
        by_condition = [values[f"{key}/{name}"] for name in evaluated.conditions]
        assert values[key] == pytest.approx(np.mean(by_condition))
    real = evaluated.splits["test"].images(plan.rows)
    first = evaluated.conditions[0]
    shown = [first in label for label in plan.labels]
    assert values[f"ms_ssim_real/{first}"] == pytest.approx(ms_ssim_diversity(real[shown]).value)


def test_the_summary_keeps_the_splits_apart(evaluated: Workbench, folder: Path) -> None:
    summary = pd.read_parquet(folder / "evaluation" / "summary.parquet").set_index("trial_id")
    assert set(summary.index) == {"base", TRIAL}
    row = summary.loc[TRIAL]
    assert row["validation/fid_mini"] == 9.0 and row["test/fid_mini"] != 9.0
    plain = {"strategy", "seed", "num_seeds", "failed"}
    assert all(name in plain or name.split("/")[0] in ("test", "validation", "seeds") for name in summary.columns)
    assert row["num_seeds"] == 2 and "seeds/fid_mini_low" not in summary.columns  # from three on


def test_another_seed_is_another_training_and_the_mean_is_of_both(scores: dict[str, Any], folder: Path) -> None:
    other = json.loads((folder / "evaluation" / TRIAL / "seed-1" / "scores.json").read_text())
    values = [record["studies"]["fidelity"]["values"]["fid_mini"] for record in (scores, other)]
    assert values[0] != values[1] and other["weights"] != scores["weights"]
    assert scores["seeds"]["seeds"] == [0, 1]
    assert scores["seeds"]["values"]["fid_mini"]["mean"] == pytest.approx(np.mean(values))
    row = pd.read_parquet(folder / "evaluation" / "summary.parquet").set_index("trial_id").loc[TRIAL]
    assert row["seeds/fid_mini"] == pytest.approx(np.mean(values))
    assert not {"fid_mini_low", "utility_auc/real", "ms_ssim_real"} & set(scores["seeds"]["values"])


def test_no_image_is_extracted_twice_and_a_second_call_keeps_everything(evaluated: Workbench, folder: Path) -> None:
    extractor = evaluated.extractor
    assert isinstance(extractor, CountingExtractor)
    plans, splits = evaluated.plans, evaluated.splits
    reconstructed, own_films, other_seeds = len(plans["test"]), sum(map(len, plans.values())), len(plans["test"])
    assert sum(extractor.counts) == sum(map(len, splits.values())) + reconstructed + own_films + other_seeds
    files = [path for path in (folder / "evaluation").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    again = bench_of(folder)
    FinalEvaluation(again, QUIET, num_seeds=2).run([TRIAL])
    assert isinstance(again.extractor, CountingExtractor) and again.extractor.counts == []
    assert {path: path.read_bytes() for path in files} == before


def test_the_report_and_the_tables_show_it(evaluated: Workbench, folder: Path) -> None:
    page = write_report(folder).read_text()
    assert "Final evaluation on test patients" in page and "Table 2. Accuracy" in page
    printed = invoke(report_main, "--run", str(folder), "--tables")
    assert printed.exit_code == 0 and "Table 1. Fidelity" in printed.stdout and TRIAL in printed.stdout


def elsewhere(folder: Path, tmp_path: Path, kind: type[Workbench], settings: FinalSettings = SETTINGS) -> Workbench:
    """A bench on a copy of the run that has its classifiers, but no generated films yet."""
    for name in ("config.json", "pareto.json", "trials.parquet", "cache/dataset", "trials", "evaluation/classifiers"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if (folder / name).exists():
            (tmp_path / name).symlink_to(folder / name)
    return bench_of(tmp_path, settings, kind)


def test_a_generator_of_training_films_is_caught_and_not_exported(folder: Path, tmp_path: Path) -> None:
    bench = elsewhere(folder, tmp_path, Copying)
    finalist = finalist_of(bench.run, TRIAL, 0)
    result = memorisation(bench, finalist)
    assert memorisation(bench, finalist) == result and bench.num_galleries == 1  # of training films, for all finalists
    assert (
        result.values["memorisation_share"] == 1.0
        and result.values["memorisation_share_exchanged"] < 0.1
        and (finalist.folder / "copies.png").is_file()
    )
    confidence = 1 - 0.95 ** result.details["num_patients"]
    assert result.values["memorisation_confidence"] == pytest.approx(confidence, abs=1e-5)
    record = Scores(finalist.folder, {"trial_id": TRIAL, "weights": bench.weights_of(finalist.adapter)}, 1)
    gate = ("--run", str(tmp_path), "--to", str(tmp_path / "out"), "--max-copies", "0.05")
    unknown = invoke(export.main, *gate)
    assert unknown.exit_code == 1 and "`--max-copies` must have the trial's copies counted" in unknown.stderr
    record.keep("memorisation", {"status": "completed", "values": dict(result.values)})
    refused = invoke(export.main, *gate)
    assert refused.exit_code == 1 and "`memorisation share` must be at most 0.05, but got 1" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert invoke(export.main, *gate[:-1], "1").exit_code == 0


class TakenError(Exception):
    """Ends what would train."""


def test_the_classifier_of_alignment_is_to_learn_what_the_real_films_of_two_splits_show(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[LabelledImages] = []

    def take(*sets: Any) -> None:
        taken.extend(sets[:2])
        raise TakenError

    monkeypatch.setattr(bench_module, "train_classifier", take)
    bench = elsewhere(folder, tmp_path, Workbench, FinalSettings(images_per_condition=5, alignment_epochs=3))
    with pytest.raises(TakenError):
        _ = bench.classifier
    for name, films in zip(("train", "validation"), taken, strict=True):
        data = bench.dataset.split(name)
        assert films.patients == tuple(data.patient_ids) and films.conditions == bench.learnable()
        assert np.array_equal(films.images, data.images(np.arange(len(data))))
        for prompt, row in zip(data.prompts, films.labels, strict=True):
            assert [name.lower() in prompt.lower() for name in films.conditions] == row.tolist()


def test_films_for_other_captions_are_less_aligned(folder: Path, tmp_path: Path) -> None:
    settings, shares = FinalSettings(images_per_condition=20), {}
    for kind in (Knowing, Mistaken):
        place = tmp_path / kind.__name__
        place.mkdir()
        bench = elsewhere(folder, place, kind, settings)
        bench.classifier = knows = KnowsFilms(bench)
        finalist, plan = finalist_of(bench.run, TRIAL, 0), bench.plans["test"]
        shares[kind] = alignment(bench, finalist).values["alignment"]
        asked = [set(label) & set(knows.conditions) for label in plan.labels]
        shown = [set(np.array(knows.conditions)[row > 0]) for row in knows.predict(bench.generated(finalist, "test"))]
        shows = [names <= there for names, there in zip(asked, shown, strict=True) if names]
        assert shares[kind] == pytest.approx(sum(shows) / len(shows))
    assert shares[Mistaken] + 0.1 < shares[Knowing] == 1.0


def test_a_study_that_cannot_be_done_is_recorded_and_leaves_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "STUDIES", {name: STUDIES[name] for name in ("utility", "memorisation")})
    one_seed = FinalSettings(**{**SETTINGS.as_record(), "utility_seeds": 1})
    evaluation = FinalEvaluation(elsewhere(folder, tmp_path, Knowing, one_seed), QUIET)
    evaluation.run([TRIAL])
    studies = json.loads((tmp_path / "evaluation" / TRIAL / "scores.json").read_text())["studies"]
    assert evaluation.num_failed == 1 and studies["memorisation"]["status"] == "completed"
    assert studies["utility"]["status"] == "failed" and studies["utility"]["attempts"] == 2
    assert "`seeds` must be at least 2" in studies["utility"]["error"]
    assert "`seeds` must be at least 2" in write_report(tmp_path).read_text()


@pytest.mark.parametrize("failure", ["infinite", "nested", "memory"])
def test_what_json_cannot_hold_and_lack_of_memory_fail_one_study(
    failure: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Workbench, finalist: Finalist) -> StudyResult:
        if failure == "memory":
            raise MemoryError
        share = float("inf") if failure == "infinite" else 1.0
        return StudyResult(values={"share": share, "sum": 1.0}, details={"shares": [float("nan")]})

    fine = Study(run=lambda bench, _: StudyResult(values={"one": 1.0}), title="fine", of=lambda _: True, splits="none")
    studies = {"broken": replace(fine, run=broken), "fine": fine}
    monkeypatch.setattr(runner, "STUDIES", studies)
    evaluation = FinalEvaluation(elsewhere(folder, tmp_path, Knowing), QUIET)
    evaluation.run([TRIAL])
    kept = json.loads((tmp_path / "evaluation" / TRIAL / "scores.json").read_text())["studies"]
    assert evaluation.num_failed == 2 and kept["fine"]["status"] == "completed"
    errors = {
        "infinite": "`share` must be finite, but got inf", "nested": "`details` must hold finite numbers",
        "memory": "MemoryError",
    }  # fmt: skip
    assert kept["broken"]["status"] == "failed" and errors[failure] in kept["broken"]["error"]


def test_films_that_come_back_exactly_have_a_finite_psnr(evaluated: Workbench) -> None:
    films = evaluated.splits["test"].images(evaluated.plans["test"].rows)
    values = _pixel_values(evaluated, films, films)
    assert values["vae_rmse"] == 0 and values["vae_psnr"] == pytest.approx(10 * np.log10(255**2 * 12))
    other = films ^ 16  # 24.05 dB where all levels change by 16
    assert _pixel_values(evaluated, films, other)["vae_psnr"] == pytest.approx(20 * np.log10(255 / 16))


def test_films_are_compared_as_small_as_if_all_were_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    monkeypatch.setattr(source, "draw_film", lambda _, side_px: draw.integers(0, 256, (side_px, side_px), np.uint8))
    data = write_dataset(PhantomSource(num_patients=60, resolution_px=80, seed=1), tmp_path).split("train")
    films = ComparedFilms(data)[:]
    assert len(data) > BATCH_SIZE and films.shape == (len(data), 64, 64)
    np.testing.assert_array_equal(films, resize(data.images(np.arange(len(data))), 64).numpy())


def test_a_cut_comes_out_of_another_training_of_its_whole_trial(folder: Path, tmp_path: Path) -> None:
    bench = elsewhere(folder, tmp_path, Workbench)
    (tmp_path / "trials").unlink()
    whole = TrialSpec(
        base="mini", dataset=bench.dataset.folder, folder=tmp_path / "trials" / "d1", cache_folder=tmp_path / "cache",
        seed=0, training=bench.config.training, lr=1e-3, batch_size=32,
        strategy={"name": "dylora", "rank": 4, "evaluated_ranks": [2]},
    )  # fmt: skip
    whole.folder.mkdir(parents=True)
    fine_tune(whole, Unscored(), lambda report: None)
    rows = [
        {"trial_id": name, "cut_of": of, "param/lr": 1e-3, "param/batch_size": 32.0} for name, of in CUTS_OF.items()
    ]
    bench.run = replace(bench.run, trials=pd.DataFrame(rows))
    cut = finalist_of(bench.run, "d1-rank2", 0)
    assert trial_spec(bench, cut, 1).fingerprint == bench.dataset.fingerprint
    retrain(bench, cut, 1)
    again = seeded(bench, cut, 1)
    assert again.adapter is not None and cut.adapter is not None
    assert read_card(again.adapter)["hyperparameters"] == read_card(cut.adapter)["hyperparameters"]
    assert bench.weights_of(again.adapter) != bench.weights_of(cut.adapter)


def test_wrong_input_is_answered(folder: Path, tmp_path: Path) -> None:
    nowhere = invoke(evaluate.main, "--run", str(tmp_path))
    assert nowhere.exit_code == 1 and "`--run` must be the directory of a finished run" in nowhere.stderr
    wrong = invoke(evaluate.main, "--run", str(folder), "--classifier", "resnet")
    assert wrong.exit_code == 1 and "`classifier` must be a known name, but got" in wrong.stderr
    (tmp_path / "evaluation").mkdir()
    printed = invoke(report_main, "--run", str(tmp_path), "--tables")
    assert printed.exit_code == 1 and "`--tables` must be of a run whose finalists were evaluated" in printed.stderr
