"""What cannot be measured, or whose files do not arrive, is answered before the sweep."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sweep.config import ConfigError, EvaluationConfig, SearchConfig, SweepConfig
from sweep.engine import require_shared, run_sweep
from sweep.loading import load_config
from sweep.preflight import check_objectives, images_of_conditions, limits_of, mirrored_note, preflight
from sweep.scoring.rungs import require_measured_at_rungs
from sweep.search.checkpoint_room import require_room
from trainables.base_models.models import load_base
from trainables.datasets.captions import FREE_TEXT, paper_template
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.writing import write_dataset
from trainables.settings import TrainingConfig

DENSE = SweepConfig(objectives=("density", "precision", "epoch_s"))


def test_an_objective_that_all_images_together_cannot_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 'density', which needs 6 images, with 5 of all .*'Edema': 3"):
        check_objectives(DENSE, {"Edema": 3, "No Finding": 2})
    check_objectives(DENSE, {"Edema": 3, "No Finding": 3})


def test_an_objective_that_is_missing_for_a_condition_is_noted() -> None:
    notes = check_objectives(DENSE, {"Edema": 5, "No Finding": 6, "Pneumothorax": 3})
    assert notes == [
        "density needs 6 images and will be missing for Edema (5), Pneumothorax (3)",
        "precision needs 4 images and will be missing for Pneumothorax (3)",
    ]
    assert check_objectives(SweepConfig(), {"Edema": 2}) == []


def test_an_objective_that_a_rung_cannot_give_is_refused_with_the_arithmetic() -> None:
    evaluation = EvaluationConfig(images_per_condition=16, early_images_share=0.125)
    config = SweepConfig(
        objectives=("coverage", "epoch_s"), evaluation=evaluation, training=TrainingConfig(num_epochs=9)
    )
    with pytest.raises(
        ConfigError, match=r"'coverage', which needs 6 images, with 4 after epoch 1: at most 2 for each of 2"
    ):
        require_measured_at_rungs(config, {"Edema": 16, "No Finding": 16})
    require_measured_at_rungs(config, {"Edema": 16, "No Finding": 16, "Pneumothorax": 16})
    never_stopped = config.model_copy(update={"search": SearchConfig(scheduler="none")})
    require_measured_at_rungs(never_stopped, {"Edema": 16, "No Finding": 16})


def test_films_that_are_mirrored_are_noted_and_their_own_texts_more_so() -> None:
    """Of what a prepared data set says of its captions alone."""
    notes = [
        mirrored_note(SimpleNamespace(prompts=prompts)) for prompts in (paper_template(with_view=False), FREE_TEXT)
    ]  # type: ignore[arg-type]
    assert all("hearts lie right" in note for note in notes)
    assert ["name a side" in note for note in notes] == [False, True]


@pytest.mark.slow
def test_no_more_images_than_held_out_films(tmp_path: Path) -> None:
    dataset = write_dataset(PhantomSource(num_patients=60, resolution_px=64, seed=2), tmp_path / "phantom")
    config = load_config("demo", None, ["evaluation.images_per_condition=5"])
    assert images_of_conditions(dataset, ("Edema", "No Finding"), config) == {"Edema": 5, "No Finding": 2}


@pytest.mark.slow
def test_a_sweep_that_could_not_be_scored_does_not_start(tmp_path: Path) -> None:
    overrides = ["objectives=density", "data.num_patients=60", "data.conditions=[Edema]"]
    config = load_config("demo", None, [*overrides, "evaluation.images_per_condition=2"])
    with pytest.raises(ConfigError, match=re.escape("`objectives` must be measurable, but got 'density'")):
        run_sweep(config, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_disk_without_room_for_checkpoints_is_refused_with_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole U-Net, its two moments and its average, four bytes each, twice for each of two trials at once."""
    overrides = ["data.num_patients=60", "search.strategies=[bitfit,unet]", "compute.concurrent_trials=2"]
    config = load_config("demo", None, [*overrides, "training.ema_decay=0.9", "search.num_trials=4"])
    num_weights = sum(parameter.numel() for parameter in load_base("mini").unet.parameters())
    needed = 2 * 2 * 4 * 4 * num_weights
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    said = rf"for what trials go on from, 2 at once x 2 x \S+ GiB = \S+ GiB \(unet trains {num_weights:,} parameters\), but"
    with pytest.raises(ConfigError, match=said):
        preflight(config, tmp_path / "run", Console(quiet=True))
    limits = limits_of(config, ("Edema",), "mini")
    require_room(config, tmp_path / "run", ("bitfit",), limits)
    (tmp_path / "run" / "trials" / "a" / "checkpoints" / "0").mkdir(parents=True)
    (tmp_path / "run" / "trials" / "a" / "checkpoints" / "0" / "facts.json").write_text(
        "1"
    )  # goes when the next is written
    require_room(config, tmp_path / "run", ("bitfit", "unet"), limits)


def test_a_run_directory_that_the_actors_files_do_not_reach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`--out` must be on storage that every machine of the cluster shares"):
        require_shared(tmp_path)
    (tmp_path / "reference.png").touch()
    require_shared(tmp_path)
