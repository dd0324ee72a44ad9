"""Boxes of findings, from a release with the official list to the figures of the autoencoder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from click.testing import Result
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from analysis.front.pareto import Front, FrontPoint
from analysis.run_folder import RunFolder
from sweep import evaluate, prepare
from sweep.config import DataConfig, EvaluationConfig, SweepConfig
from sweep.final.bench import Workbench
from sweep.final.marks import place_boxes
from sweep.final.runner import FinalEvaluation
from sweep.final.settings import FinalSettings
from trainables.base_models.models import load_base
from trainables.datasets.phantom import PhantomSource
from trainables.datasets.phantom.masks import bounding_box
from trainables.datasets.store import PreparedDataset

pytestmark = pytest.mark.slow
PHANTOM = PhantomSource(num_patients=60, resolution_px=128, seed=4)
ENTRY = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
LIST = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
NIH_WORDS = {"Pleural Effusion": ("Effusion", "Effusion"), "Lung Opacity": ("Infiltration", "Infiltrate")}
"""The label file's word and the list's for a finding of the phantom."""
SMALL_PX, FRAME_PX = 64, 1024
SETTINGS = FinalSettings(images_per_condition=3, alignment_epochs=1, membership_films=3)


@dataclass(frozen=True)
class Drawn:
    """A film of the release: what it shows, and its boxes in the 1024 px of the released images."""

    image_id: str
    conditions: tuple[str, ...]
    boxes: dict[str, tuple[int, int, int, int]]


def invoke(command: Callable[..., Any], *options: str | Path) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(option) for option in options])


def draw_release(root: Path) -> list[Drawn]:
    """Phantom films in the official layout, saved as smaller copies of the released images, with the list of boxes."""
    (root / "images_001" / "images").mkdir(parents=True)
    drawn = []
    for split in ("train", "validation", "test"):
        for sample, masks in zip(PHANTOM.samples(split), PHANTOM.finding_masks(split), strict=True):
            patient = int(sample.patient_id.rpartition("-")[2])
            index = sum(film.image_id.startswith(f"{patient:08d}") for film in drawn)
            image_id, scale = f"{patient:08d}_{index:03d}", FRAME_PX // PHANTOM.resolution_px
            Image.fromarray(sample.image).save(root / "images_001" / "images" / f"{image_id}.png")
            corners = {name: bounding_box(mask) for name, mask in masks.items() if mask.any()}
            boxes = {
                name: (left * scale, top * scale, (right - left) * scale, (bottom - top) * scale)
                for name, (left, top, right, bottom) in corners.items()
            }
            drawn.append(Drawn(image_id, sample.conditions, boxes))
    with (root / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
        rows = [[f"{film.image_id}.png", _labels(film), int(film.image_id[:8]), 50, "F", "PA"] for film in drawn]
        csv.writer(file).writerows([ENTRY, *rows])
    write_list(root / "BBox_List_2017.csv", drawn)
    return drawn


def _labels(film: Drawn) -> str:
    return "|".join(NIH_WORDS.get(name, (name, name))[0] for name in film.conditions)


def write_list(path: Path, drawn: list[Drawn]) -> None:
    rows = [
        [f"{film.image_id}.png", NIH_WORDS.get(name, (name, name))[1], *box]
        for film in drawn
        for name, box in film.boxes.items()
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([LIST, *rows])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nih")


@pytest.fixture(scope="module")
def release(root: Path) -> list[Drawn]:
    return draw_release(root / "release")


@pytest.fixture(scope="module")
def prepared(root: Path, release: list[Drawn]) -> PreparedDataset:
    """The release, prepared by the command at half the side of its files."""
    words = ("Pleural Effusion", "Infiltration", "Cardiomegaly", "No Finding")
    options: list[str | Path] = [text for word in words for text in ("--condition", word)]
    options += ["--root", root / "release", "--to", root / "prepared", "--resolution", str(SMALL_PX), "--seed", "77"]
    done = invoke(prepare.main, "nih_cxr14", *options)
    assert done.exit_code == 0, done.output
    return PreparedDataset.open(root / "prepared")


@pytest.fixture(scope="module")
def run(root: Path, prepared: PreparedDataset) -> RunFolder:
    """The directory of a run whose trials are not needed: the base's encoders are studied in any case."""
    folder = root / "run"
    folder.mkdir()
    config = SweepConfig(
        data=DataConfig(source="prepared", path=prepared.folder), evaluation=EvaluationConfig(images_per_condition=3)
    )
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    pd.DataFrame({"trial_id": [], "status": []}).to_parquet(folder / "trials.parquet")
    point = FrontPoint(trial_id="a1", strategy="unet", values={}, params={}, knee=True)
    Front(objectives=(), points=(point,)).write(folder / "pareto.json")
    return RunFolder.open(folder)


def study(run: RunFolder, boxes: Path | None) -> dict[str, Any]:
    """The record of the base's autoencoder after an evaluation with this list."""
    evaluation = FinalEvaluation(Workbench(run, SETTINGS, boxes), Console(quiet=True))
    evaluation.run([])
    record = json.loads((run.folder / "evaluation" / "base" / "scores.json").read_text())["studies"]["autoencoder"]
    assert record["status"] == "completed", record
    return dict(record)


def inside(box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The pixels of a small film whose centres, seen in the frame, lie in a box; pixel by pixel."""
    left, top, width, height = box
    centres = [(pixel + 0.5) * FRAME_PX / SMALL_PX for pixel in range(SMALL_PX)]
    return np.array([[left <= x < left + width and top <= y < top + height for x in centres] for y in centres])


def cnr(film: NDArray[np.uint8], box: tuple[int, int, int, int]) -> tuple[float, float]:
    """Signed contrast and noise of a box: the background is 2 to 5 px away, by the sum of steps along both sides."""
    rows, columns = np.nonzero(inside(box))
    y, x = np.indices(film.shape)
    away = np.maximum(rows.min() - y, y - rows.max()).clip(0) + np.maximum(columns.min() - x, x - columns.max()).clip(0)
    around = film[(away >= 2) & (away <= 5)].astype(float)
    return film[away == 0].mean() - around.mean(), max(around.std(), 1 / np.sqrt(12))


@cache
def autoencoder() -> AutoencoderKL:
    return load_base("mini").vae


@torch.no_grad()
def through_the_autoencoder(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels, vae = torch.from_numpy(film / 127.5 - 1).float().expand(1, 3, -1, -1), autoencoder()
    back = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0].mean(dim=0).clamp(-1, 1)
    return ((back + 1) * 127.5).round().to(torch.uint8).numpy()


def test_marks_lie_where_the_phantom_drew_the_findings(
    root: Path, release: list[Drawn], prepared: PreparedDataset
) -> None:
    films = prepared.split("test")
    placed = place_boxes(root / "release" / "BBox_List_2017.csv", films)
    known = {film.image_id: film for film in release}
    expected = [(known[name], condition) for name in films.image_ids for condition in known[name].boxes]
    assert placed.counts["in_list"] == sum(len(film.boxes) for film in release)
    assert placed.counts["on_test_films"] == len(expected) == len(placed.marks) + placed.counts["too_small"]
    for mark in placed.marks:
        boxes = known[films.image_ids[mark.film]].boxes
        word = next(name for name in boxes if NIH_WORDS.get(name, (name,))[0] in mark.condition)
        np.testing.assert_array_equal(mark.mask, inside(boxes[word]))


def test_the_figures_are_those_of_an_independent_computation(
    root: Path, release: list[Drawn], prepared: PreparedDataset, run: RunFolder
) -> None:
    record = study(run, root / "release" / "BBox_List_2017.csv")
    films, known = prepared.split("test"), {film.image_id: film for film in release}
    restored = cache(lambda row: through_the_autoencoder(films.image(row)))
    by_word: dict[str, list[tuple[float, float]]] = {}
    for row, name in enumerate(films.image_ids):
        for condition, box in known[name].boxes.items():
            if min(box[2:]) >= 2 * FRAME_PX / SMALL_PX:
                (before, noise), (after, noise_after) = (cnr(film, box) for film in (films.image(row), restored(row)))
                word = {"Lung Opacity": "Infiltration"}.get(condition, condition)
                by_word.setdefault(word, []).append((abs(before) / noise, np.sign(before) * after / noise_after))
    assert {"Infiltration", "Pleural Effusion", "Cardiomegaly"} <= set(by_word)
    for word, pairs in by_word.items():
        before, after = np.mean(pairs, axis=0)
        assert record["values"][f"vae_num_marks/{word}"] == len(pairs)
        assert record["values"][f"vae_cnr_before/{word}"] == pytest.approx(before, rel=1e-6)
        assert record["values"][f"vae_cnr_kept/{word}"] == pytest.approx(after / before, rel=0.01)
    assert record["details"]["num_marks"] == sum(map(len, by_word.values()))
    assert record["details"]["boxes"]["on_test_films"] == sum(len(known[name].boxes) for name in films.image_ids)


def test_another_list_is_another_study_and_no_list_leaves_the_rest(
    root: Path, release: list[Drawn], prepared: PreparedDataset, run: RunFolder, tmp_path: Path
) -> None:
    official = root / "release" / "BBox_List_2017.csv"
    first = study(run, official)
    assert study(run, official) == first
    on_test = set(prepared.split("test").image_ids)
    boxed = next(film for film in release if film.image_id in on_test and film.boxes)
    small = Drawn(boxed.image_id, boxed.conditions, {"Nodule": (500, 500, 2 * FRAME_PX // SMALL_PX - 1, 300)})
    write_list(tmp_path / "other.csv", [boxed, small])
    other = study(run, tmp_path / "other.csv")
    assert other["details"]["boxes"]["too_small"] == 1 and "vae_cnr_kept/Nodule" not in other["values"]
    assert other["details"]["num_marks"] < first["details"]["num_marks"]
    without = study(run, None)
    assert not any(name.startswith("vae_cnr") for name in without["values"])
    assert without["values"]["vae_rmse"] == first["values"]["vae_rmse"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["00099999_000.png,Mass,0,0,99,99"],
            "`--boxes` must have a film of the test split, but got '00099999_000' and",
        ),
        (
            ["{test}.png,Mass,0,0,31,99"],
            "`--boxes` must have a box of at least 2 px on a test film of 64 px, but got 1",
        ),
        (["{test}.png,Mass,900,0,200,99"], "must be a box within the 1024 px of the released images"),
    ],
)
def test_wrong_lists_are_answered_before_anything_is_computed(
    prepared: PreparedDataset, run: RunFolder, tmp_path: Path, rows: list[str], message: str
) -> None:
    path = tmp_path / "boxes.csv"
    lines = [row.format(test=prepared.split("test").image_ids[0]) for row in rows]
    path.write_text("\n".join([",".join(LIST), *lines]))
    result = invoke(evaluate.main, "--run", run.folder, "--boxes", path)
    assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output


def test_a_missing_list_is_answered(run: RunFolder, tmp_path: Path) -> None:
    result = invoke(evaluate.main, "--run", run.folder, "--boxes", tmp_path / "none.csv")
    assert result.exit_code == 1 and "`boxes` must be a file like BBox_List_2017.csv, but got" in result.stderr
