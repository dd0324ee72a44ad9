"""The model card: what the hub reads of it, and what a reader is told."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.run_folder import RunFolder
from sweep.publishing.model_card import Publication, write_card
from sweep.publishing.origin import Origin
from trainables.datasets.captions import named_template

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
ADAPTER = {"strategy": "lora", "hyperparameters": {"rank": 8}, "base": {"source": SD15, "weights_hash": "abc"}}
DATASET = {
    "name": "nih_cxr14",
    "fingerprint": "f1",
    "resolution_px": 64,
    "num_samples": {"train": 708, "validation": 173, "test": 119},
    "conditions": ["Edema", "No Finding"],
    "prompts": {"template": "Chest X-ray of a subject with {findings}", "view_words": {"PA": "posteroanterior view"}},
}
VALUES = {
    "fidelity": {
        "fid_mini": 12.0,
        "fid_mini_low": 10.0,
        "fid_mini_high": 14.0,
        "vendi_mini": 3.0,
        "fid_mini/Edema": 20.0,
    },
    "memorisation": {
        "memorisation_share": 0.02,
        "memorisation_num_copies": 4.0,
        "memorisation_num_generated": 200.0,
        "memorisation_max_false_alarms": 0.05,
    },
    "membership": {"membership_auc": 0.51},
}


def scores(**more: Any) -> dict[str, Any]:
    return {
        "format": 3,
        "series": 1,
        "trial_id": "a1",
        "strategy": "lora",
        "seed": 0,
        "conditions": ["Edema"],
        "extractor": {"name": "mini", "weights_hash": "0123456789abcdef"},
        "settings": {"images_per_condition": 4},
        "studies": {
            **{name: {"status": "completed", "values": values} for name, values in VALUES.items()},
            "utility": {"status": "failed", "error": "ValueError: a | b", "attempts": 2},
        },
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = tmp_path / "run"
    evaluated, data = folder / "evaluation" / "a1", folder / "cache" / "dataset"
    evaluated.mkdir(parents=True)
    data.mkdir(parents=True)
    (evaluated / "scores.json").write_text(json.dumps(scores()))
    Image.new("L", (8, 8)).save(evaluated / "samples.png")
    (data / "dataset.json").write_text(json.dumps(DATASET))
    (folder / "provenance.json").write_text(json.dumps({"git_commit": "c0ffee", "packages": {"torch": "2.15"}}))
    config = {"base": "sd15", "seed": 3, "data": {"source": "nih_cxr14"}, "training": {"num_epochs": 40}}
    (folder / "config.json").write_text(json.dumps(config))
    row = {
        "trial_id": "a1",
        "status": "completed",
        "strategy": "lora",
        "fid_mini": 11.0,
        "trainable_parameters": 1594368,
    }
    pd.DataFrame([row]).to_parquet(folder / "trials.parquet")
    points = [
        FrontPoint(trial_id=name, strategy="lora", values={"fid_mini": fid}, params={"lr": 1e-4}, knee=name == "a1")
        for name, fid in (("a1", 11.0), ("b2", 12.5))
    ]
    Front(objectives=(Objective("fid_mini", "min"),), points=tuple(points)).write(folder / "pareto.json")
    return RunFolder.open(folder)


def card_of(run: RunFolder, to: Path, **more: Any) -> ModelCard:
    to.mkdir()
    said = {"name": "owner/films", "license": None, "how_to_load": "    pipeline.load_lora_weights('adapter')", **more}
    write_card(Origin.of(run, "a1", ADAPTER), Publication(**said), to)
    return ModelCard.load(to / "README.md")


def test_the_hub_reads_what_it_is(run: RunFolder, tmp_path: Path) -> None:
    data = card_of(run, tmp_path / "out").data
    assert (data.license, data.base_model, data.library_name) == ("creativeml-openrail-m", SD15, "diffusers")
    assert data.pipeline_tag == "text-to-image"
    assert {"lora", "synthetic-data", "chest-x-ray"} <= set(data.tags)
    assert [(result.metric_type, result.metric_value, result.dataset_split) for result in data.eval_results] == [
        ("fid", 12.0, "test"),
        ("vendi", 3.0, "test"),
    ]
    assert (tmp_path / "out" / "samples.png").is_file()


def test_sentences_of_how_to_load_stand_beside_code_and_what_is_not_on_the_hub_is_not_fetched(
    run: RunFolder, tmp_path: Path
) -> None:
    how = "Load it with diffusers:\n    pipeline.load()\n    pipeline.go()"
    text = card_of(run, tmp_path / "out", name="films", how_to_load=how).text
    assert "## How to load\n\nLoad it with diffusers:\n\n    pipeline.load()\n    pipeline.go()\n\n## " in text
    assert "hf download" not in text


def test_a_seed_of_0_is_told(run: RunFolder, tmp_path: Path) -> None:
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**config, "seed": 0}))
    assert "| seed | 0 |" in card_of(RunFolder.open(run.folder), tmp_path / "out").text


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({"rotation_degrees": 5.0, "flip": True}, "| augmentation | rotation degrees 5.0, flip True, variants 4 |"),
        ({"variants": 8}, ""),
    ],
)
def test_films_that_were_varied_are_told(run: RunFolder, tmp_path: Path, settings: dict[str, Any], row: str) -> None:
    config = json.loads((run.folder / "config.json").read_text())
    config["training"] = {**config.get("training", {}), "augmentation": settings}
    (run.folder / "config.json").write_text(json.dumps(config))
    text = card_of(RunFolder.open(run.folder), tmp_path / "out").text
    assert row in text if row else "augmentation" not in text


def test_a_reader_is_told_everything(run: RunFolder, tmp_path: Path) -> None:
    text = card_of(run, tmp_path / "out", max_copies=0.05).text
    for said in (
        "nih_cxr14: 708 train, 173 validation, 119 test, split by patient, 64 px",
        "| seed | 3 |",
        "c0ffee",
        "Chest X-ray of a subject with {findings}, posteroanterior view, where findings are edema, no finding",
        "| **a1** | **lora** | **11** |",
        "the knee of a front of 2 points: FID (mini) 11 ↓",
        "| a1 | lora | 12 [10, 14] | 3 |",
        "4 of 200 generated films (2.0 %) count as copies of training films",
        "let pass by its gate of at most 5.0 %",
        "AUC 0.51",
        "utility: ValueError: a | b",
        "not for clinical use",
        "    pipeline.load_lora_weights('adapter')",
        "hf download owner/films --local-dir adapter",
    ):
        assert said in text, said


@pytest.mark.parametrize("caption", ["subject", "showing"])
def test_a_reader_is_told_to_prompt_as_the_captions_were_made(run: RunFolder, caption: str) -> None:
    made = named_template(caption, with_view=True, with_age=True, with_sex=True)
    told = replace(Origin.of(run, "a1", ADAPTER), dataset={**DATASET, "prompts": asdict(made)}).prompts
    due = made.prompt(["Edema", "No Finding"], view="PA", age=61, sex="F")
    asked, _, joined = told.partition(", where findings are edema, no finding; several are joined by ")
    for what, choice in (
        ("female or male", "female"),
        ("{age}", "61"),
        ("posteroanterior view or anteroposterior view", "posteroanterior view"),
    ):
        assert what in asked
        asked = asked.replace(what, choice)
    assert joined == ("commas and `and`." if " and " in due else "commas.")
    assert asked.replace("{findings}", "edema and no finding" if " and " in due else "edema, no finding") == due


def test_a_licence_may_be_given_and_an_unknown_one_is_said_to_be_unknown(run: RunFolder, tmp_path: Path) -> None:
    given = card_of(run, tmp_path / "given", license="mit")
    assert given.data.license == "mit" and "`mit`, as chosen by who exported it; see that of the base" in given.text
    assert "`creativeml-openrail-m`, from the base" in card_of(run, tmp_path / "own").text
    other = {**ADAPTER, "base": {"source": "somebody/model", "weights_hash": "abc"}}
    (tmp_path / "out").mkdir()
    write_card(Origin.of(run, "a1", other), Publication(name="x", license=None, how_to_load=""), tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "other" and "which this project does not know" in card.text


def test_a_trial_without_final_evaluation_has_no_card(run: RunFolder, tmp_path: Path) -> None:
    (run.folder / "evaluation" / "a1" / "scores.json").unlink()
    with pytest.raises(ValueError, match="must be of a trial with a final evaluation, but got 'a1' without"):
        card_of(run, tmp_path / "out")
    assert not (tmp_path / "out" / "README.md").exists()
