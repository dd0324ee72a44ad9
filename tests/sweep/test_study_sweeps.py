"""Every preset of a published study, run in small: the mini base, a stand-in of its collection, on the CPU."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from small_sweep import invoke
from stand_ins import STAND_INS

from analysis.features.weights import write_state
from analysis.report.__main__ import main as report_main
from analysis.report.published import PUBLISHED
from analysis.run_folder import RunFolder
from analysis.studies.patient_verification import SiameseNetwork
from sweep import prepare, run
from sweep.final import benchmark
from sweep.final.bench import Workbench
from sweep.final.runner import FinalEvaluation
from sweep.final.settings import FinalSettings
from sweep.presets import PRESETS
from trainables.base_models.bert_layout import write_bert_layout
from trainables.strategies.card import read_card

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
SMALL = (
    *("base=mini", "data.resolution_px=64", "training.num_epochs=1", "training.mixed_precision=no"),
    "search.budget.steps=null",
    *("training.evaluate_every_epochs=null", "evaluation.extractor=mini", "evaluation.images_per_condition=2"),
    *("evaluation.num_steps=1", "evaluation.guidance_scale=1", "objectives=[trainable_parameters, epoch_s]"),
    *("compute.workers_per_trial=1", "compute.cpus_per_worker=1", "compute.gpus_per_worker=0"),
    *("compute.evaluation_cpus=1", "compute.evaluation_gpus=0"),
)
EVALUATED = FinalSettings(
    images_per_condition=2,
    num_resamples=4,
    membership_films=4,
    architecture="small",
    alignment_epochs=1,
    utility_epochs=1,
    utility_seeds=2,
)
CONDITION = "No Finding"
STUDIES = {
    "pixels_under_pressure": 12,
    "pixels_under_pressure_corrected": 2,
    "selora_iu": 4,
    "selora_montgomery": 2,
    "roentgen": 4,
    "chambon": 2,
    "chexgenbench": 2,
}
"""How many trials of each are run: all where strategies differ from those of the others."""
SIDES_PX = {"selora_iu": 72, "selora_montgomery": 72}
"""Of studies at another side than the base's own; of the others it is 64."""


def prepared(name: str, root: Path) -> Path:
    """The data of a study, by the command that its docstring gives, of few films."""
    command = re.search(r"python -m sweep\.prepare (.*?)\n\s*\n", PRESETS[name].__doc__ or "", re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    small = {"--root": str(root / "raw"), "--to": str(root / "prepared"), "--base": "mini"}
    small["--resolution"] = str(SIDES_PX.get(name, 64))
    sizes = "40%,30%,30%" if "80%,16%,4%" in words else "24,20,20"
    for option, value in (small | {"--sizes": sizes, "--num-train": "24"}).items():
        if option in words:
            words[words.index(option) + 1] = value
    STAND_INS[words[0]](root / "raw", 138 if words[0] == "montgomery" else 200)
    result = invoke(prepare.main, *words, *(() if "--num-train" in words else ("--num-train", "24")))
    assert result.exit_code == 0, result.output
    return root / "prepared"


@pytest.fixture
def few_films_for_privacy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ResNet-50 describes of films of 224 px in a second."""
    monkeypatch.setattr(benchmark, "NUM_PRIVATE_PROMPTS", 3)
    monkeypatch.setattr(benchmark, "NUM_REPEATS", 2)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_from_its_data_to_its_table(name: str, tmp_path: Path, few_films_for_privacy: None) -> None:
    settings = [*SMALL, f"data.path={prepared(name, tmp_path)}"]
    side_px = SIDES_PX.get(name)
    assert (PRESETS[name]().resolution_px is not None) == (side_px is not None)
    settings += [f"resolution_px={side_px}"] if side_px else []
    if "text_encoder_swap" in PRESETS[name]().search.candidates():
        write_bert_layout(tmp_path / "bert", hidden_size=64)
        settings.append(f"search.hyperparameters.text_encoder_swap.encoder={tmp_path / 'bert'}")
    words = [text for setting in settings for text in ("--set", setting)]
    out = tmp_path / "run"
    result = invoke(run.main, "--preset", name, "--out", str(out), "--num-trials", str(STUDIES[name]), *words)
    assert result.exit_code == 0, result.output
    trials = pd.read_parquet(out / "trials.parquet")
    assert (trials["status"] == "completed").all(), trials["reason"].tolist()
    whole = trials[trials["cut_of"].isna()]  # ranks cut out of one training are rows of their own
    assert sorted(whole["strategy"]) == sorted(PRESETS[name]().search.candidates()[: STUDIES[name]])
    finalist = str(whole["trial_id"].iloc[0])
    assert read_card(out / "trials" / finalist / "adapter")["resolution_px"] == (side_px or 64)
    evaluated = EVALUATED
    if name == "chexgenbench":
        write_state(SiameseNetwork().state_dict(), tmp_path / "verifier.safetensors")
        evaluated = replace(EVALUATED, verifier_weights=tmp_path / "verifier.safetensors")
    FinalEvaluation(Workbench(RunFolder.open(out), evaluated), Console(quiet=True)).run([finalist])
    studies = json.loads((out / "evaluation" / finalist / "scores.json").read_text())["studies"]
    assert studies["fidelity"]["status"] == "completed"
    assert ("benchmark" in studies) == (name == "chexgenbench")
    if name == "chexgenbench":
        assert studies["benchmark"]["status"] == "completed", studies["benchmark"]
        values = studies["benchmark"]["values"]
        assert values["benchmark_num_films"] >= 2 and 0 <= values["benchmark_auc_macro/mixed"] <= 1
        assert 0 < values["benchmark_reid_mean"] <= values["benchmark_reid_max"] < 1
        assert 0 < values["benchmark_distance_min_mini"] <= values["benchmark_distance_mean_mini"]
        assert np.isfinite(values["benchmark_fid_mini"]) and f"benchmark_fid_mini/{CONDITION}" in values
    printed = invoke(report_main, "--run", str(out), "--tables")
    assert printed.exit_code == 0, printed.output
    text = " ".join(printed.output.split())
    assert "Table 1. Fidelity" in text and finalist in text
    assert ("CheXGenBench by subgroup" in text) == (name == "chexgenbench")
    assert text.count("may not be compared") == len(PUBLISHED.get(name, ()))
