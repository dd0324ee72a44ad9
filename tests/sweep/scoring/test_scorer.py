"""Scoring: the same prompts and noise for all, films extracted once, the same numbers again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from counting_extractor import CountingExtractor
from free_text_phantom import FreeTextPhantom
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from analysis.features.mini import load_mini
from analysis.metrics import frechet_distance, vendi_score
from analysis.run_folder import resamples_beside
from sweep.config import ComputeConfig
from sweep.scoring.actors import start_evaluators
from sweep.scoring.identity import weights_digest
from sweep.scoring.plans import (
    GenerationPlan,
    conditions_to_score,
    plan_by_caption,
    plan_by_condition,
    plan_by_distinct_caption,
    repeated,
)
from sweep.scoring.scorer import AdapterScorer, EvaluationSpec
from sweep.scoring.streaming import as_grey
from trainables.base_models.models import load_base
from trainables.datasets.base import CONDITIONS
from trainables.datasets.captions import PromptTemplate
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.store import PreparedDataset, PreparedSplit
from trainables.datasets.writing import write_dataset
from trainables.sampling import generate
from trainables.strategies import make_strategy
from trainables.strategies.base import trained_parameters

pytestmark = pytest.mark.slow
SHOWN = ("Edema", "No Finding")
PLENTY = ("Edema", "Cardiomegaly")
"""Of each at least four are held out."""


def planned(films: PreparedSplit, conditions: Sequence[str], per_condition: int, seed: int = 0) -> GenerationPlan:
    return plan_by_condition(films, conditions, per_condition, seed=seed, template=PromptTemplate())


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models, strategy = load_base("mini"), make_strategy("bitfit", {})
    torch.manual_seed(0)
    strategy.attach(models)
    with torch.no_grad():
        for _, parameter in trained_parameters(models):
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("trial") / "adapter"
    strategy.export(models, folder)
    return folder


def counted(spec: EvaluationSpec) -> tuple[AdapterScorer, CountingExtractor]:
    scorer, extractor = AdapterScorer(spec), CountingExtractor()
    scorer.extractor = extractor
    return scorer, extractor


def test_a_plan_is_the_same_for_every_trial_and_another_for_another_seed(dataset: PreparedDataset) -> None:
    films = dataset.split("train")
    first, again, other = (planned(films, PLENTY, 8, seed) for seed in (1, 1, 2))
    assert first.seeds == again.seeds and first.digest() == again.digest()
    assert np.array_equal(first.rows, again.rows)
    assert first.digest() != other.digest() and not np.array_equal(first.rows, other.rows)
    assert len(set(first.seeds)) == len(first.seeds)


def test_as_many_images_as_held_out_films(dataset: PreparedDataset) -> None:
    films = dataset.split("validation")
    shown = {name: films.indices_with(name) for name in ("Edema", "Cardiomegaly", "No Finding")}
    most = max(map(len, shown.values())) - 1
    plan = planned(films, list(shown), most)
    for name, rows in shown.items():
        drawn = plan.rows[plan.table([name])[:, 0]]
        assert len(drawn) == min(most, len(rows))
        assert len(set(drawn)) == len(drawn) and set(drawn) <= set(rows)
    assert len(plan.labels) == len(plan.prompts) == len(plan.seeds) == len(plan)
    assert plan.prompts[0] == "Chest X-ray of a subject with edema"
    assert plan.prompts[-1] == "Chest X-ray of a subject with no finding"


def test_films_for_captions_mirror_real_films_one_by_one(dataset: PreparedDataset) -> None:
    films = dataset.split("train")
    plan = plan_by_caption(films, PLENTY, 5, 0)
    assert len(set(plan.rows)) == len(plan) and plan.prompts == tuple(films.prompts[row] for row in plan.rows)
    assert all(plan.table([name]).sum() >= 5 for name in PLENTY)
    assert any(len(label) == 2 for label in plan.labels)  # else this test shows nothing of combinations
    for row, label in zip(plan.rows, plan.labels, strict=True):
        assert set(label) == set(films.conditions[row]) & set(PLENTY)


def test_one_film_is_made_for_each_caption_however_many_films_share_it(dataset: PreparedDataset) -> None:
    films = dataset.split("train")
    plan = plan_by_distinct_caption(films, films.conditions[0], 0)
    assert sorted(plan.prompts) == sorted(set(films.prompts)) and len(plan) < len(films)
    assert list(plan.rows) == sorted(list(films.prompts).index(prompt) for prompt in plan.prompts)
    few = plan_by_distinct_caption(films, films.conditions[0], 0, 3)
    assert len(few) == 3 and set(few.prompts) < set(plan.prompts)
    again = repeated(few, 2, 0)
    assert list(again.rows) == [row for row in few.rows for _ in range(2)]
    assert again.prompts[::2] == again.prompts[1::2] == few.prompts and again.labels[::2] == few.labels
    assert len(set(again.seeds)) == 2 and again.seeds[:2] == again.seeds[2:4] == again.seeds[4:]


def test_a_condition_of_one_film_is_refused(dataset: PreparedDataset) -> None:
    films = dataset.split("validation")
    (rare,) = [name for name in (*CONDITIONS, "Fracture") if len(films.indices_with(name)) < 2][:1]
    with pytest.raises(ValueError, match=rf"`conditions` must have at least 2 .* of '{rare}'\. Prepare more"):
        planned(films, ("Edema", rare), 8)


def test_a_prompt_is_made_as_the_captions_that_were_trained_on(tmp_path: Path, spec: EvaluationSpec) -> None:
    """With the view in the captions it is that of the held-out film that the generated one is compared with."""
    source = PhantomSource(num_patients=60, resolution_px=64, seed=2, with_view=True)
    data = write_dataset(source, tmp_path / "views")
    assert data.split("train").prompts[0].endswith(" view")
    scorer = AdapterScorer(replace(spec, dataset=data.folder))
    words = {"PA": "posteroanterior view", "AP": "anteroposterior view"}
    views = [words[data.split("validation").views[row] or ""] for row in scorer.plan.rows]
    assert set(views) == set(words.values())
    assert list(scorer.plan.prompts) == [
        f"Chest X-ray of a subject with {label.lower()}, {view}"
        for (label,), view in zip(scorer.plan.labels, views, strict=True)
    ]


def test_free_text_is_that_of_the_film_that_is_compared_with(tmp_path: Path, spec: EvaluationSpec) -> None:
    data = write_dataset(FreeTextPhantom(), tmp_path / "reports")
    plan = AdapterScorer(replace(spec, dataset=data.folder)).plan
    names = [data.split("validation").image_ids[row] for row in plan.rows]
    assert list(plan.prompts) == [f"{name}: see the lungs" for name in names]


def test_conditions_are_those_asked_for_or_all_with_two_films(dataset: PreparedDataset) -> None:
    held_out = dataset.split("validation")
    plenty = tuple(name for name in CONDITIONS if len(held_out.indices_with(name)) >= 2)
    assert conditions_to_score(dataset, "validation", None) == plenty
    assert conditions_to_score(dataset, "validation", SHOWN) == SHOWN


def test_conditions_that_cannot_be_scored_are_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`data\.conditions` must be a known name, but got 'Fracture'.*Edema"):
        conditions_to_score(dataset, "validation", ("Edema", "Fracture"))
    wider = replace(dataset, conditions=(*dataset.conditions, "Fracture"))
    with pytest.raises(ValueError, match=r"`conditions` must have at least 2 .* but got 0 of 'Fracture'"):
        conditions_to_score(wider, "validation", ("Edema", "Fracture"))
    with pytest.raises(ValueError, match="`validation` must show a condition on at least 2 films"):
        conditions_to_score(replace(dataset, conditions=("Fracture",)), "validation", None)


def test_every_image_is_extracted_once_and_the_numbers_stay(
    spec: EvaluationSpec, dataset: PreparedDataset, adapter: Path
) -> None:
    scorer, extractor = counted(spec)
    first = scorer.score(adapter, spec.cache_folder / "samples.png")
    num_films, num_generated = len(dataset.split("validation")), len(scorer.plan.labels)
    assert sorted(extractor.counts) == sorted([num_films, num_generated])
    assert scorer.score(adapter, spec.cache_folder / "samples.png") == first
    assert len(extractor.counts) == 2
    base = scorer.score(None, spec.cache_folder / "baseline.png")
    assert base.keys() == first.keys() and base["fid_mini"] != first["fid_mini"]
    assert extractor.counts[2:] == [num_generated]

    second, untouched = counted(spec)
    assert second.score(None, spec.cache_folder / "baseline.png") == base
    assert np.array_equal(second.held_out_features, scorer.held_out_features)
    assert untouched.counts == []


def test_what_is_asked_for_again_is_answered_without_drawing_anew(
    spec: EvaluationSpec, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a trial that was cut off from the scorer while it worked; of other weights in the same place, all is new."""
    scorer, copied = AdapterScorer(spec), shutil.copytree(adapter, tmp_path / "trial" / "adapter")
    drawn, generate_all = list[int](), AdapterScorer.generate
    monkeypatch.setattr(
        AdapterScorer, "generate", lambda self, *of: drawn.append(len(of[1])) or generate_all(self, *of)
    )
    first = scorer.score(copied, copied.parent / "samples.png")
    assert len(drawn) == 1
    assert scorer.score(copied, copied.parent / "samples.png") == first and len(drawn) == 1
    assert scorer.score(copied, copied.parent / "other.png") == first and len(drawn) == 2
    card = json.loads((copied / "adapter.json").read_text())
    (copied / "adapter.json").write_text(json.dumps(card, indent=9))
    assert scorer.score(copied, copied.parent / "other.png") == first and len(drawn) == 3


def test_scores_do_not_depend_on_the_cache(spec: EvaluationSpec, tmp_path: Path) -> None:
    elsewhere = replace(spec, cache_folder=tmp_path / "elsewhere")
    first, second = (AdapterScorer(each).score(None, tmp_path / "sheet.png") for each in (spec, elsewhere))
    assert first == second


def test_scores_are_the_metrics_of_the_cached_features(spec: EvaluationSpec, dataset: PreparedDataset) -> None:
    scorer = AdapterScorer(spec)
    scores = scorer.score(None, spec.cache_folder / "baseline.png")
    extract = load_mini(None, "cpu").extract
    plan, config = scorer.plan, spec.config
    at_once = generate(
        load_base("mini"),
        plan.prompts,
        plan.seeds,
        num_steps=config.num_steps,
        guidance_scale=config.guidance_scale,
        batch_size=config.batch_size,
    )
    features = scorer.features.get(scorer.generated_key(None, plan, config))
    grey = as_grey(torch.from_numpy(at_once)).numpy()
    assert np.array_equal(features, extract(grey))  # to the bit, though no one ever held all images
    generated = extract(grey).astype(np.float64)
    held_out = dataset.split("validation")
    films = extract(held_out.images(np.unique(scorer.plan.rows))).astype(np.float64)
    assert scores["fid_mini"] == pytest.approx(frechet_distance(generated, films), rel=1e-4)
    assert scores["vendi_mini"] == pytest.approx(vendi_score(generated), rel=1e-5)
    edema = scorer.plan.table(["Edema"])[:, 0]
    assert scores["vendi_mini/Edema"] == pytest.approx(vendi_score(generated[edema]), rel=1e-5)
    of_edema = extract(held_out.images(scorer.plan.rows[edema])).astype(np.float64)
    assert scores["fid_mini/Edema"] == pytest.approx(frechet_distance(generated[edema], of_edema), rel=1e-4)


def test_a_film_of_several_conditions_is_one_film_among_all(spec: EvaluationSpec) -> None:
    both = replace(spec, conditions=PLENTY, config=spec.config.model_copy(update={"images_per_condition": 32}))
    scorer = AdapterScorer(both)
    rows = scorer.plan.rows
    assert len(np.unique(rows)) < len(rows)  # else this test shows nothing
    scores = scorer.score(None, spec.cache_folder / "both.png")
    assert (scores["num_generated"], scores["num_reference"]) == (len(rows), len(np.unique(rows)))
    assert scores["num_reference/Edema"] == scorer.plan.table(["Edema"]).sum()


def test_a_network_of_the_hub_scores_from_a_folder(spec: EvaluationSpec, tmp_path: Path) -> None:
    small = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=6,
        image_size=32,
        patch_size=16,
    )
    CLIPVisionModelWithProjection(small).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "clip")
    config = spec.config.model_copy(update={"extractor": "clip", "extractor_weights": tmp_path / "clip"})
    scorer = AdapterScorer(replace(spec, config=config))
    scores = scorer.score(None, tmp_path / "baseline.png")
    assert {"fid_clip", "vendi_clip", "kid_clip", "fid_clip/Edema"} <= scores.keys()
    assert all(np.isfinite(value) for value in scores.values())
    assert scorer.held_out_features.shape == (len(scorer.held_out), 6)
    assert len(list((spec.cache_folder / "features").glob("clip-*.arrow"))) == 2


def test_sheets_are_left_for_the_eye(spec: EvaluationSpec, adapter: Path) -> None:
    scorer = AdapterScorer(spec)
    scorer.score(adapter, adapter.parent / "samples.png")
    scorer.prepare(spec.cache_folder / "reference.png")
    assert (adapter.parent / "samples.png").stat().st_size > 1000
    assert (spec.cache_folder / "reference.png").stat().st_size > 1000


def test_an_actor_that_dies_is_succeeded_and_its_score_is_not_lost(ray_cluster: None, spec: EvaluationSpec) -> None:
    evaluator = start_evaluators(spec, ComputeConfig())
    try:
        evaluator.prepare(spec.cache_folder)
        _, score = evaluator.score_base(spec.cache_folder)
        ray.kill(evaluator.actors[0], no_restart=False)
        assert ray.get(score, timeout=300).keys() >= {"fid_mini", "vendi_mini"}
    finally:
        evaluator.stop()


def test_films_of_another_precision_have_features_of_their_own(
    spec: EvaluationSpec, adapter: Path, tmp_path: Path
) -> None:
    half = replace(spec, config=spec.config.model_copy(update={"precision": "bf16"}))
    full, rounded = (AdapterScorer(each) for each in (spec, half))
    keys = {scorer.generated_key(adapter, full.plan, spec.config).text for scorer in (full, rounded)}
    assert len(keys) == 2 and full.numerics.label == "fp32" and rounded.base.unet.dtype == torch.bfloat16
    scores = [scorer.score(adapter, tmp_path / "samples.png") for scorer in (full, rounded)]
    assert scores[0] != scores[1] and scores[0]["fid_mini"] == pytest.approx(scores[1]["fid_mini"], rel=0.1)


def test_an_adapters_file_is_hashed_once_and_anew_where_it_was_written_anew(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read, digest = tmp_path / "adapter", [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or digest(file, name))
    hashes = []
    for written in (b"one", b"two"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(adapter, folder)
        with (folder / "adapter.safetensors").open("ab") as file:
            file.write(written)
        hashes += [weights_digest("base", folder) for _ in range(3)]
    assert len(read) == 4 and len(set(hashes)) == 2


def test_an_adapter_that_differs_by_its_card_alone_is_scored_anew(spec: EvaluationSpec, tmp_path: Path) -> None:
    scorer, scores = AdapterScorer(spec), []
    for alpha in (2.0, 64.0):
        models, strategy = load_base("mini"), make_strategy("lora", {"rank": 2, "alpha": alpha})
        torch.manual_seed(0)
        strategy.attach(models)
        with torch.no_grad():
            for _, parameter in trained_parameters(models):
                parameter.copy_(0.1 * torch.randn_like(parameter))
        strategy.export(models, tmp_path / f"{alpha}")
        scores.append(scorer.score(tmp_path / f"{alpha}", tmp_path / "samples.png")["fid_mini"])
    assert scores[0] != scores[1]


def at_rungs(spec: EvaluationSpec, **config: float) -> EvaluationSpec:
    return replace(spec, config=spec.config.model_copy(update={"images_per_condition": 4, **config}), conditions=PLENTY)


def test_an_early_evaluation_has_fewer_images_and_names_of_its_own(spec: EvaluationSpec) -> None:
    scorer, extractor = counted(at_rungs(spec, early_images_share=0.5))
    early = scorer.score(None, spec.cache_folder / "early.png", 0.5)
    measured = [f"early_{name}_mini" for name in ("fid", "kid", "vendi", "precision", "recall")]
    errors = [f"early_{name}_mini_se" for name in ("fid", "kid", "vendi")]  # two images have no three neighbours
    counts = [f"early_num_{name}" for name in ("generated", "reference", "steps")]
    assert early.keys() == {*measured, *errors, *counts}
    assert all(early[name] > 0 for name in errors)
    assert (early["early_num_generated"], early["early_num_reference"], early["early_num_steps"]) == (4, 4, 1)
    last = scorer.score(None, spec.cache_folder / "last.png")
    assert not any(name.startswith("early_") for name in last) and last["num_generated"] == 8
    assert sorted(extractor.counts)[:2] == [4, 8]  # other steps make other images


def test_the_images_of_a_rung_are_the_first_of_the_last_evaluations(spec: EvaluationSpec) -> None:
    scorer = AdapterScorer(at_rungs(spec))
    early, last = scorer._plan_of(2), scorer._plan_of(4)
    assert last.digest() == scorer.plan.digest() != early.digest()
    for condition in PLENTY:
        few, all_ = ([row for row, label in enumerate(plan.labels) if label == (condition,)] for plan in (early, last))
        assert [early.seeds[row] for row in few] == [last.seeds[row] for row in all_][:2]
        assert early.rows[few].tolist() == last.rows[all_].tolist()[:2]
    chosen = np.unique(scorer.plan.rows[scorer.plan.places < 2])
    assert np.array_equal(scorer._reference_of(2).features, scorer.held_out_features[chosen])


def test_what_a_rung_of_the_same_weights_extracted_is_not_extracted_again(spec: EvaluationSpec, adapter: Path) -> None:
    wider = at_rungs(spec, early_steps_share=1.0)
    scorer, extractor = counted(wider)
    assert len(scorer.plan.labels) == 8 and len(scorer.held_out_features) == len(scorer.held_out)
    extractor.counts.clear()
    scorer.score(adapter, spec.cache_folder / "early.png", 0.5)
    last = scorer.score(adapter, spec.cache_folder / "last.png")
    assert extractor.counts == [4, 4]
    assert scorer.score(adapter, spec.cache_folder / "again.png") == last and extractor.counts == [4, 4]
    assert (spec.cache_folder / "again.png").read_bytes() == (spec.cache_folder / "last.png").read_bytes()
    scorer.score(None, spec.cache_folder / "base.png")
    assert extractor.counts == [4, 4, 8]  # other weights are other images
    alone, _ = counted(replace(wider, cache_folder=spec.cache_folder / "alone"))
    assert alone.score(adapter, spec.cache_folder / "alone.png") == pytest.approx(last, rel=1e-3, abs=1e-6)
    assert (spec.cache_folder / "alone.png").read_bytes() == (spec.cache_folder / "last.png").read_bytes()


def test_rungs_with_all_images_and_steps_are_reported_like_the_last(spec: EvaluationSpec) -> None:
    scorer, extractor = counted(at_rungs(spec, early_images_share=1.0, early_steps_share=1.0))
    at_rung, last = (scorer.score(None, spec.cache_folder / f"{share}.png", share) for share in (0.1, 1.0))
    assert last == {name: value for name, value in at_rung.items() if not name.startswith("early_")}
    assert at_rung["early_fid_mini"] == last["fid_mini"] and "early_fid_mini_se" in at_rung
    assert sorted(extractor.counts)[0] == 8 and len(extractor.counts) == 2


def test_the_last_evaluation_leaves_what_resampled_films_and_patients_make_of_it(
    spec: EvaluationSpec, adapter: Path, tmp_path: Path
) -> None:
    """Row k of two models is of the same films and patients; their mean is what was measured."""
    scorer, _ = counted(replace(spec, conditions=PLENTY, resampled=("fid", "vendi")))
    scorer.score(adapter, tmp_path / "samples.png", share_done=0.3)
    assert not resamples_beside(tmp_path / "samples.png").exists()
    scores = scorer.score(adapter, tmp_path / "samples.png")
    scorer.score(None, tmp_path / "baseline.png")
    ours, base = (pd.read_parquet(resamples_beside(tmp_path / name)) for name in ("samples.png", "baseline.png"))
    names = [f"fid_{scorer.extractor.name}", f"vendi_{scorer.extractor.name}"]
    assert list(ours) == names and len(ours) == len(base) == 64
    assert np.allclose(ours.mean(), [scores[name] for name in names]) and (ours.std() > 0).all()
