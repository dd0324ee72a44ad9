"""Run directories as sweeps leave them, made of synthetic trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.front.pareto import Objective
from analysis.report import write_report
from trainables.sheets import labelled_sheet

OBJECTIVES = (
    Objective("fid_mini", "min"),
    Objective("vendi_mini", "max"),
    Objective("trainable_parameters", "min"),
    Objective("epoch_s", "min"),
)
STRATEGIES = ("unet", "lora", "dora", "bitfit")
CONDITIONS = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")
EVIL = "<script>alert('x')</script>"


def synthetic_trials(num_trials: int = 14, seed: int = 0) -> pd.DataFrame:
    """Trials whose objectives pull apart, the last two of them failed."""
    rng = np.random.default_rng(seed)
    sizes = {"unet": 2_700_000, "lora": 21_000, "dora": 24_000, "bitfit": 9_100}
    rows = []
    for index in range(num_trials):
        strategy = STRATEGIES[index % 4]
        size = int(sizes[strategy] * (2 ** rng.integers(0, 4) if strategy in ("lora", "dora") else 1))
        fid = 60 * size**-0.2 + rng.uniform(0, 3)
        row = {
            "trial_id": f"{index:05d}",
            "number": index,
            "status": "completed",
            "reason": None,
            "strategy": strategy,
            "param/strategy": strategy,
            "param/lr": 10 ** rng.uniform(-5, -3),
            "param/batch_size": 16,
            f"param/{strategy}/rank": 8 if strategy in ("lora", "dora") else None,
            "fid_mini": fid,
            "vendi_mini": 2 + rng.uniform(0, 3),
            "trainable_parameters": size,
            "epoch_s": 4 + size / 6e5 + rng.uniform(0, 1),
            "num_generated": 192,
            "num_reference": 192,
        }
        row |= {f"fid_mini/{name}": fid * rng.uniform(1, 3) for name in CONDITIONS}
        rows.append(row)
    for row in rows[-2:]:
        row |= {"status": "failed", "fid_mini": np.nan, "vendi_mini": np.nan}
    rows[-1]["reason"] = f"Traceback (most recent call last):\n  File x\nFloatingPointError: {EVIL}"
    return pd.DataFrame(rows)


def synthetic_results(trials: pd.DataFrame, num_epochs: int = 6) -> pd.DataFrame:
    rows = [
        {
            "trial_id": trial.trial_id,
            "epoch": epoch,
            "loss": 0.2 + 0.5 * np.exp(-epoch / 2) + 0.01 * trial.number,
            "fid_mini": 20 * np.exp(-epoch) + trial.number if epoch % 2 else np.nan,
        }
        for trial in trials.itertuples()
        for epoch in range(num_epochs)
    ]
    return pd.DataFrame(rows)


def synthetic_run(folder: Path, trials: pd.DataFrame) -> Path:
    """A run directory as a sweep leaves it."""
    folder.mkdir(exist_ok=True)
    trials.to_parquet(folder / "trials.parquet")
    synthetic_results(trials).to_parquet(folder / "results.parquet")
    find_front(trials, OBJECTIVES).write(folder / "pareto.json")
    (folder / "config.json").write_text(json.dumps({"preset": "demo", "base": "mini", "note": EVIL}))
    rng = np.random.default_rng(1)
    for trial_id in trials["trial_id"]:
        (folder / "trials" / trial_id).mkdir(parents=True, exist_ok=True)
        sheet = rng.integers(0, 255, (120, 160), dtype=np.uint8)
        Image.fromarray(sheet).save(folder / "trials" / trial_id / "samples.png")
    Image.fromarray(rng.integers(0, 255, (120, 4000), dtype=np.uint8)).save(folder / "reference.png")
    Image.fromarray(rng.integers(0, 255, (120, 160), dtype=np.uint8)).save(folder / "baseline.png")
    (folder / "baseline.json").write_text(json.dumps({"fid_mini": 987.5}))
    return folder


NUM_FILMS = 4
FILM_PX = 16


def film_grey(trial: int, condition: int, column: int) -> int:
    """The grey of a film by which tests tell it from all others of its sheet, and from the same of the next trials."""
    return 20 + 9 * (4 * condition + column) + trial % 9


def coded_sheet(trial: int) -> Image.Image:
    """A sheet of films as a sweep lays it out, each of one grey."""
    shape = (FILM_PX, FILM_PX)
    rows = {
        name: np.stack([np.full(shape, film_grey(trial, row, column), np.uint8) for column in range(NUM_FILMS)])
        for row, name in enumerate(CONDITIONS)
    }
    return labelled_sheet(rows)


def write_word_maps(sheet: Path, conditions: Sequence[int], num_columns: int = NUM_FILMS) -> None:
    """Maps of the finding, which acts on the left half of films of these conditions, and of `Chest`, on the right of all."""
    tile, left = 10, np.arange(10) < 5
    maps = np.zeros((2, len(CONDITIONS), tile, num_columns, tile), np.uint8)
    maps[0, list(conditions)] = np.where(left, 255, 0)
    maps[1] = np.where(left, 0, 255)
    peaks = np.zeros((2, len(CONDITIONS), num_columns))
    peaks[0, list(conditions)], peaks[1] = 0.25, 0.0125
    text = PngInfo()
    text.add_text(
        "word_maps",
        json.dumps({"words": ["Chest"], "side": 8, "margin": 1, "lows": (0 * peaks).tolist(), "peaks": peaks.tolist()}),
    )
    picture = Image.fromarray(maps.reshape(-1, num_columns * tile))
    picture.save(sheet.with_name(f"{sheet.stem}-words.png"), pnginfo=text)


def rung_run(folder: Path, *, seed: int = 0, num_trials: int = 13) -> Path:
    """A run with failed trials, one that was stopped at a rung, one that still runs, resamples and sheets of coded films."""
    trials = synthetic_trials(num_trials, seed)
    measured = [objective.name for objective in OBJECTIVES[:2]]
    trials["rung"] = pd.array([pd.NA] * len(trials), dtype="Int64")
    trials.loc[3, ["status", "rung", "reason"]] = ["stopped", 1, "it promised too little"]
    trials.loc[7, "status"] = "running"
    for name in measured:
        trials[f"early_{name}"] = trials[name] * 1.5
        trials.loc[[3, 7], name] = np.nan
    trials.loc[trials["fid_mini"].idxmin(), f"fid_mini/{CONDITIONS[2]}"] = np.nan
    synthetic_run(folder, trials)
    results = pd.read_parquet(folder / "results.parquet")
    results["early_fid_mini"] = np.where(results["epoch"] % 2 == 0, 30.0 / (1 + results["epoch"]), np.nan)
    results.assign(epoch_s=60.0).to_parquet(folder / "results.parquet")
    rng = np.random.default_rng(seed)
    resamples = {}
    for name, row in trials.set_index("trial_id").iterrows():
        resamples[str(name)] = pd.DataFrame(
            {metric: row[metric] * (1 + 0.05 * rng.standard_normal(50)) for metric in measured}
        )
    for name, table in resamples.items():
        table.to_parquet(folder / "trials" / name / "samples-resamples.parquet")
    find_front(trials, OBJECTIVES, Evidence(resamples=resamples, results=results)).write(folder / "pareto.json")
    (folder / "provenance.json").write_text(json.dumps({"data_fingerprint": "one"}))
    for place, name in enumerate(trials["trial_id"]):
        coded_sheet(place).save(folder / "trials" / name / "samples.png")
    coded_sheet(len(trials)).save(folder / "reference.png")
    coded_sheet(len(trials) + 1).save(folder / "baseline.png")
    return folder


def within(trials: pd.DataFrame, limits: Sequence[tuple[str, str, float]]) -> pd.DataFrame:
    """Completed trials within limits such as `("epoch_s", "<=", 5.0)`; the tests' own way."""
    rows = trials[trials["status"] == "completed"]
    for name, sign, value in limits:
        rows = rows[rows[name] <= value] if sign == "<=" else rows[rows[name] >= value]
    return rows


def quick_report(folder: Path, others: Sequence[Path] | None = None) -> Path:
    """The page without importances, which take a second of each; test_course.py is about them."""
    return write_report(folder, others, with_importances=False)
