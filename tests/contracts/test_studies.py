"""Presets of published studies: their plans are as published, their data can be prepared as they say, their tables print."""

from __future__ import annotations

import inspect
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer
from rich.console import Console
from stand_ins import STAND_INS
from typer.testing import CliRunner

from analysis.report.printed import print_tables
from analysis.report.published import PUBLISHED, SIX, beside_published
from search_spaces import SEARCH_SPACES
from sweep.config import ConfigError, SweepConfig
from sweep.preflight import check_resolution
from sweep.prepare import main
from sweep.presets import PRESETS
from sweep.search.plan import SearchPlan
from sweep.search.turns import grid_points
from trainables.batches import BatchPlan
from trainables.budgets import Course
from trainables.datasets.store import PreparedDataset

STUDIES = (
    *("pixels_under_pressure", "pixels_under_pressure_corrected", "selora_iu", "selora_montgomery"),
    *("roentgen", "chambon", "chexgenbench"),
)
ELEVEN = {
    *("unet", "text_encoder", "vae", "unet+text_encoder", "unet+vae", "vae+text_encoder", "all"),
    *("lora", "dora", "bitfit", "difffit"),
}
app = typer.Typer()
app.command()(main)


def choices_of(config: SweepConfig) -> dict[str, dict[str, Any]]:
    """What the space gives each strategy if it may draw nothing but the strategy: it raises where more is left open."""
    space, search = SEARCH_SPACES[config.search.space], config.search
    names = search.candidates()
    return {
        name: space(optuna.trial.FixedTrial({"strategy": name}), strategies=names, fixed=search.hyperparameters)
        for name in names
    }


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_one_trial_for_each_strategy_with_nothing_left_to_draw(name: str) -> None:
    config = PRESETS[name]()
    choices = choices_of(config)
    assert len(choices) == config.search.num_trials and all(choice["lr"] > 0 for choice in choices.values())
    search = config.search
    plan = SearchPlan.of(
        SEARCH_SPACES[search.space],
        search.candidates(),
        search.hyperparameters,
        num_trials=search.num_trials,
        seed=config.seed,
    )
    assert search.sampler == "grid" and grid_points(plan) == [(name, {}) for name in choices]
    assert config.base == "sd15" and config.data.path == Path("prepared") / name


def test_pixels_under_pressure_is_as_published() -> None:
    replay, corrected = (choices_of(PRESETS[name]()) for name in STUDIES[:2])
    assert set(replay) == ELEVEN | {"delta_full"} and set(corrected) == ELEVEN
    assert replay["text_encoder"]["lr"] == 5e-6 and replay["unet"]["lr"] == 1e-5 and replay["vae"]["lr"] == 1e-6
    everything = replay["all"]["strategy"]
    rates = {part: replay["all"]["lr"] * everything[f"{part}.lr_ratio"] for part in ("unet", "vae", "text_encoder")}
    assert rates == {"unet": pytest.approx(1e-5), "vae": pytest.approx(1e-6), "text_encoder": pytest.approx(1e-6)}
    assert replay["lora"]["strategy"] == {"name": "lora", "rank": 8, "alpha": 16}
    assert {
        name: choice["batch_size"] for name, choice in replay.items() if choice["batch_size"] != 64
    } == dict.fromkeys(("dora", "bitfit", "difffit", "delta_full"), 128)
    assert {choice["batch_size"] for choice in corrected.values()} == {64}
    training = PRESETS["pixels_under_pressure"]().training
    assert (training.mixed_precision, training.lr_schedule, training.weight_decay) == ("fp16", "constant", 1e-2)


@pytest.mark.parametrize("name", ["selora_iu", "selora_montgomery"])
def test_selora_trains_and_samples_at_the_side_that_was_published(name: str) -> None:
    config = PRESETS[name]()
    assert (config.resolution_px, config.data.resolution_px) == (224, 224)
    check_resolution(224, config)
    with pytest.raises(ConfigError, match="`data` must have films of 224 px as `resolution_px` says, but got 512"):
        check_resolution(512, config)


def test_roentgen_is_scored_after_as_many_steps_as_published() -> None:
    config = PRESETS["roentgen"]()
    parts, every = config.training.num_epochs, config.training.evaluate_every_epochs
    assert config.search.budget.steps is not None and every is not None
    course = Course(budget=config.search.budget, num_epochs=parts, plan=BatchPlan(num_images=5_000, batch_size=128))
    scored = [*range(every - 1, parts, every), parts - 1]
    steps = [next(step for step in range(0, 60_001, 100) if course.is_spent(part, step, 0.0)) for part in scored]
    assert steps == [12_500, 25_000, 37_500, 50_000, 60_000] and not course.is_spent(scored[0], 12_499, 0.0)
    assert (config.evaluation.guidance_scale, config.evaluation.num_steps) == (4.0, 75)


def preparation(name: str, root: Path) -> list[str]:
    """The command of a preset's docstring, on a stand-in of its collection, in small."""
    command = re.search(r"python -m sweep\.prepare (.*?)\n\s*\n", inspect.getdoc(PRESETS[name]) or "", re.DOTALL)
    assert command is not None
    words = shlex.split(command[1].replace("\\\n", " "))
    assert words[words.index("--to") + 1] == f"prepared/{name}" and words[words.index("--resolution") + 1] == str(
        PRESETS[name]().resolution_px or 512
    )
    small = {"--root": str(root), "--to": str(root.parent / name), "--resolution": "64", "--base": "mini"}
    sizes = "60%,20%,20%" if "80%,16%,4%" in words else "240,90,90"
    small |= {"--sizes": sizes, "--num-train": "100"}
    for option in set(small) & set(words):
        words[words.index(option) + 1] = small[option]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_its_data_are_prepared_by_the_command_that_it_gives(name: str, tmp_path: Path) -> None:
    words = preparation(name, tmp_path / "raw")
    STAND_INS[words[0]](tmp_path / "raw", 138 if words[0] == "montgomery" else 500)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    data = PreparedDataset.open(tmp_path / name)
    assert (tmp_path / name / "data_card.html").is_file()
    assert data.rules.uncertain == ("zeros" if name in ("pixels_under_pressure", "chambon") else "ignore")
    assert (data.prompts.template is None) == ("text" in words)
    unknown = [finding for findings in data.split("train").unknown for finding in findings]
    assert ("Edema" in unknown) == (name in ("pixels_under_pressure_corrected", "roentgen"))
    if name == "pixels_under_pressure":
        assert data.num_samples == {"train": 240, "validation": 90, "test": 90}
        assert set(data.conditions) == set(SIX)


def scores(strategy: str, extractor: str, images: int, values: dict[str, float]) -> dict[str, Any]:
    return {
        "format": 3,
        "series": 1,
        "trial_id": strategy.replace("+", "-"),
        "strategy": strategy,
        "seed": 0,
        "conditions": ["Edema"],
        "studies": {"fidelity": {"status": "completed", "values": values, "details": {"figures": []}}},
        "extractor": {"name": extractor, "weights_hash": "abc"},
        "settings": {"images_per_condition": images},
    }


def run_of(root: Path, preset: str, *records: dict[str, Any]) -> Path:
    for record in records:
        folder = root / "evaluation" / record["trial_id"]
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps(record))
    (root / "config.json").write_text(json.dumps({"preset": preset}))
    return root


def printed(run: Path) -> str:
    text = io.StringIO()
    print_tables(run, Console(file=text, width=250))
    return text.getvalue()


def test_the_papers_tables_have_the_published_figures_beside_ours(tmp_path: Path) -> None:
    values = {"fid_xrv": 4.5, "vendi_xrv": 5.0, "alignment_recall/Edema": 0.257}
    run = run_of(tmp_path, "pixels_under_pressure", scores("unet", "xrv", 5000, values))
    text = printed(run)
    assert "4.5 / 3.42" in text and "25.7 / 25.7" in text and "– / 5.65" in text  # LoRA has not been run
    assert "may not be compared: its split is of other patients" in text and "films a condition" not in text


def test_the_benchmark_has_its_figures_by_subgroup(tmp_path: Path) -> None:
    record = scores("unet", "rad_dino", 1000, {})
    groups = {"sex female": 0.5, "sex male": 0.25, "age 40-59": 0.125}
    values = {f"subgroup_benchmark_kid/{name}": value for name, value in groups.items()}
    values |= {"subgroup_benchmark_auc/sex female": 0.75, "subgroup_benchmark_auc_low/sex female": 0.7}
    values |= {"subgroup_benchmark_auc_high/sex female": 0.8, "subgroup_benchmark_kid_gap/sex": 0.0625}
    details = {"subgroups_of_fidelity": {"too_few": {"view AP": [3, 3]}}, "subgroups_of_utility": {"too_few": {}}}
    record["studies"]["benchmark"] = {"status": "completed", "values": values, "details": details}
    text = printed(run_of(tmp_path, "chexgenbench", record))
    table = text[text.index("CheXGenBench by subgroup: unet") :]
    rows = [" ".join(line.replace("│", " ").split()) for line in table.splitlines()]
    assert "sex female 0.5 0.75" in rows and "[0.7, 0.8]" in rows and "sex male 0.25 –" in rows
    assert "age 40-59 0.125 –" in rows and "view AP too few films too few films" in rows
    assert "largest gap by sex 0.0625 –" in rows
    others = printed(run_of(tmp_path / "other", "demo", scores("lora", "mini", 32, {"subgroup_kid/sex female": 1.0})))
    assert "by subgroup" not in others


def test_what_keeps_figures_from_being_compared_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, "pixels_under_pressure", scores("unet", "mini", 32, {"fid_mini": 4.5}))
    text = printed(run)
    assert "published features are of xrv, ours of mini" in text
    assert "published with up to 5,000 films a condition, ours with 32" in text


def test_other_runs_have_no_published_tables(tmp_path: Path) -> None:
    assert beside_published("demo", ()) == ()
    text = printed(run_of(tmp_path, "demo", scores("unet", "mini", 32, {"fid_mini": 4.5})))
    assert "published" not in text


def test_published_tables_are_whole() -> None:
    assert set(PUBLISHED) <= set(STUDIES)
    for preset, tables in PUBLISHED.items():
        for table in tables:
            assert all(len(row) == len(table.columns) for row in table.rows.values())
            assert set(table.rows) <= set(PRESETS[preset]().search.candidates())
