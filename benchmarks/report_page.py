"""How large the report of a big sweep is, how long a browser takes to open it, and to answer: `python -m benchmarks.report_page`.

The run is synthetic: trials over four objectives with noise, early values at rungs, stopped trials, resamples, and a sheet of
phantom films for each. The page is the project's own. What is left after each answer is compared with what pandas finds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.front.objectives import BASE
from analysis.front.pareto import Objective
from analysis.report import write_report
from analysis.run_folder import resamples_beside
from trainables.datasets.phantom import PhantomSource
from trainables.sheets import labelled_sheet

OBJECTIVES = (
    Objective("fid_mini", "min"),
    Objective("vendi_mini", "max"),
    Objective("trainable_parameters", "min"),
    Objective("epoch_s", "min"),
)
CONDITIONS = ("Cardiomegaly", "Lung Opacity", "Edema", "No Finding", "Pneumothorax", "Pleural Effusion")
SIZES = {"unet": 2_700_000, "lora": 21_000, "dora": 24_000, "bitfit": 9_100, "norm": 7_000, "attention": 700_000}
NUM_FILMS = 8
NUM_RESAMPLES = 100
GOAL_OPEN_S, GOAL_ANSWER_MS = 2.0, 100.0
READY = """() => new Promise(done => {
    const isDrawn = one => !one.clientWidth || one.querySelector("svg");
    const look = () => {
        const held = document.getElementById("instrument");
        const isReady = held?.dataset.late === "0" && [...held.parentElement.querySelectorAll(".chart")].every(isDrawn);
        if (isReady) done(performance.now()); else requestAnimationFrame(look);
    };
    look();
})"""
ACT = """([act, selector, from, to]) => new Promise(done => {
    const place = document.querySelector(selector), box = place.getBoundingClientRect();
    const point = (type, [x, y]) => place.dispatchEvent(new PointerEvent(type, {
        clientX: box.x + x * box.width, clientY: box.y + y * box.height, pointerType: "mouse", button: 0, bubbles: true }));
    place.setPointerCapture = () => {};
    if (act === "drag") point("pointerdown", from);
    const start = performance.now(), since = () => performance.now() - start;
    if (act === "drag") point("pointermove", to);
    else { place.value = to; place.dispatchEvent(new Event("input")); }
    const times = { scripts: since() };
    const look = () => {
        if (document.getElementById("instrument").dataset.late !== "0") return setTimeout(look);
        times.everything = since();
        if (act === "drag") point("pointerup", to);
        done(times);
    };
    requestAnimationFrame(() => setTimeout(() => { times.painted = since(); look(); }));
})"""
"""What a page is asked to do: ms until the scripts are done, until what is seen is painted, and until all is drawn."""
LIMITED = "trainable_parameters"
ACTS: dict[str, tuple[str, list[Any]]] = {
    "a limit by number": ("#limits", ["set", f"#limit-{LIMITED}-number", None, None]),
    "a brush over an axis": ("#parallel", ["drag", "#parallel", None, None]),
    "a box in a plot": ("#scatter", ["drag", "#scatter .chart:first-child", None, None]),
}
"""Each with what stands at the top of the window meanwhile."""


def synthetic_trials(num_trials: int, rng: np.random.Generator) -> pd.DataFrame:
    """Trials whose objectives pull apart; a fifth of them was stopped at a rung."""
    strategy = np.array(list(SIZES))[np.arange(num_trials) % len(SIZES)]
    sizes = np.array([SIZES[name] for name in strategy]) * 2 ** rng.integers(0, 4, num_trials)
    fid = 60 * sizes**-0.2 + rng.gamma(2.0, 1.5, num_trials)
    table = pd.DataFrame(
        {
            "trial_id": [f"{place:08x}" for place in rng.choice(16**8, num_trials, replace=False)],
            "number": np.arange(num_trials),
            "status": np.where(rng.random(num_trials) < 0.2, "stopped", "completed"),
            "strategy": strategy,
            "param/lr": 10 ** rng.uniform(-5, -2, num_trials),
            "param/batch_size": rng.choice([8, 16, 32], num_trials),
            "fid_mini": fid,
            "vendi_mini": 2 + 20 / fid + rng.normal(0, 0.2, num_trials),
            "trainable_parameters": sizes,
            "epoch_s": 4 + sizes / 6e5 + rng.gamma(2.0, 0.4, num_trials),
        }
    )
    stopped = table["status"] == "stopped"
    for name in ("fid_mini", "vendi_mini"):
        table[f"early_{name}"] = table[name] * 1.4
        table = table.assign(
            **{f"{name}/{condition}": table[name] * rng.uniform(1, 2, num_trials) for condition in CONDITIONS}
        )
        table.loc[stopped, name] = np.nan
    return table.assign(
        rung=np.where(stopped, 1.0, np.nan), reason=stopped.map({True: "it promised too little", False: None})
    )


def synthetic_results(trials: pd.DataFrame, num_epochs: int = 9) -> pd.DataFrame:
    """A report an epoch, early values at the rungs."""
    rows = [
        {
            "trial_id": trial["trial_id"],
            "epoch": epoch,
            "loss": 0.2 + 0.5 * np.exp(-epoch / 2),
            "epoch_s": trial["epoch_s"],
            **({f"early_{n}": trial[f"early_{n}"] for n in ("fid_mini", "vendi_mini")} if epoch in (1, 3) else {}),
        }
        for trial in trials.to_dict("records")
        for epoch in range(2 if trial["status"] == "stopped" else num_epochs)
    ]
    return pd.DataFrame(rows)


def write_run(folder: Path, num_trials: int, *, seed: int = 0) -> pd.DataFrame:
    """A run directory as a sweep leaves it."""
    rng = np.random.default_rng(seed)
    trials = synthetic_trials(num_trials, rng)
    results = synthetic_results(trials)
    trials.to_parquet(folder / "trials.parquet")
    results.to_parquet(folder / "results.parquet")
    baseline = {"fid_mini": 40.0, "vendi_mini": 1.8}
    resamples = {BASE: _resamples(baseline, rng)}
    for row in trials[trials["status"] == "completed"].to_dict("records"):
        resamples[row["trial_id"]] = _resamples(row, rng)
    find_front(trials, OBJECTIVES, Evidence(baseline=baseline, resamples=resamples, results=results)).write(
        folder / "pareto.json"
    )
    (folder / "baseline.json").write_text(json.dumps(baseline))
    (folder / "config.json").write_text(json.dumps({"preset": "synthetic", "base": "mini"}))
    write_sheets(folder, trials["trial_id"], rng)
    for name, table in resamples.items():
        sheet = folder / "baseline.png" if name == BASE else folder / "trials" / str(name) / "samples.png"
        table.to_parquet(resamples_beside(sheet))
    return trials


def _resamples(values: Any, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {name: values[name] * (1 + 0.04 * rng.standard_normal(NUM_RESAMPLES)) for name in ("fid_mini", "vendi_mini")}
    )


def write_sheets(folder: Path, trial_ids: pd.Series, rng: np.random.Generator) -> None:
    """Phantom films in other order and contrast for each trial, with noise that a codec cannot do away with."""
    samples = PhantomSource(num_patients=60, seed=seed_of(rng)).samples("train")
    films = np.stack([sample.image for _, sample in zip(range(len(CONDITIONS) * NUM_FILMS), samples, strict=False)])
    for name in ("reference.png", "baseline.png"):
        _sheet(films).save(folder / name)
    for trial_id in trial_ids:
        to = folder / "trials" / str(trial_id)
        to.mkdir(parents=True)
        noise = rng.normal(0, 12, films.shape)
        _sheet(np.clip(films[rng.permutation(len(films))] * rng.uniform(0.7, 1.1) + noise, 0, 255)).save(
            to / "samples.png"
        )


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _sheet(films: Any) -> Image.Image:
    rows = np.asarray(films, np.uint8).reshape(len(CONDITIONS), NUM_FILMS, *films.shape[1:])
    return labelled_sheet(dict(zip(CONDITIONS, rows, strict=True)))


def opening_s(page: Page, address: str) -> float:
    """Seconds from the request until every plot is drawn."""
    page.goto("about:blank")
    page.goto(address, wait_until="domcontentloaded")
    return float(page.evaluate(READY)) / 1000


def answers(page: Page, trials: pd.DataFrame, act: str, repeats: int) -> pd.DataFrame:
    """Milliseconds of each of `scripts`, `painted` and `everything`, a row a repeat; each begins without limits."""
    place, (how, selector, _, _) = ACTS[act]
    done = trials[trials["status"] == "completed"]
    page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
    page.wait_for_timeout(300)
    rows = []
    for share in np.linspace(0.2, 0.9, repeats):
        if how == "set":
            ends: list[Any] = [None, float(done[LIMITED].quantile(share))]
        else:
            across = _axis(page) if selector == "#parallel" else 0.1
            ends = [[across, 0.12], [across if selector == "#parallel" else share, share]]
        rows.append(page.evaluate(ACT, [how, selector, *ends]))
        if how == "set":
            _check(page, done, ends[1])
        page.click("#reset", force=True)
        page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
        page.evaluate(READY)
    return pd.DataFrame(rows)


def _axis(page: Page) -> float:
    """Where the axis of what is limited stands, as a share of the width of the parallel coordinates."""
    axis = [objective.name for objective in OBJECTIVES].index(LIMITED)
    line = page.locator("#parallel .role-axis .role-axis-domain").nth(axis).bounding_box()
    box = page.locator("#parallel").bounding_box()
    if line is None or box is None:
        raise RuntimeError("`#parallel` must show its axes, but got none. The page is not drawn.")
    return (line["x"] + line["width"] / 2 - box["x"]) / box["width"]


def _check(page: Page, done: pd.DataFrame, limit: float) -> None:
    """The trials that are left are those that pandas leaves."""
    left = page.locator("#trials tbody tr").count()
    expected = int((done[LIMITED] <= limit).sum())
    if left != expected:
        raise RuntimeError(f"`{expected}` trials must be left, but got {left}. The page's limits are wrong.")


def main(
    num_trials: Annotated[int, typer.Option(help="Of the synthetic run.")] = 200,
    repeats: Annotated[int, typer.Option(help="Openings; twice as many answers of each kind are timed.")] = 5,
) -> None:
    """Write a run, its page, and what a browser needs for it.

    Example: python -m benchmarks.report_page --num-trials 200
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trials = write_run(folder, num_trials)
        started = time.process_time()
        page_path = write_report(folder)
        _say(f"building the page: {time.process_time() - started:.1f} s of CPU; load {os.getloadavg()[0]:.1f}")
        text = page_path.read_text(encoding="utf-8")
        pictures = sum(map(len, re.findall(r"data:image/webp;base64,[A-Za-z0-9+/=]+", text)))
        _say(f"{len(text) / 1e6:.1f} MB: pictures {pictures / 1e6:.1f}, the rest {(len(text) - pictures) / 1e6:.2f}")
        measure(page_path, trials, repeats)


def measure(page_path: Path, trials: pd.DataFrame, repeats: int) -> None:
    """Open the page and ask it, in headless Chromium."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        opened = [opening_s(page, page_path.as_uri()) for _ in range(repeats)]
        _say(f"Chromium {browser.version}; load {os.getloadavg()[0]:.1f}")
        _say(f"open: median {statistics.median(opened):.2f} s, best {min(opened):.2f} s (goal {GOAL_OPEN_S:g} s)")
        for act in ACTS:
            times = answers(page, trials, act, 2 * repeats)
            said = [f"{what} {times[what].median():.0f} (best {times[what].min():.0f})" for what in times]
            _say(f"{act}, median ms: {', '.join(said)}; painted within {GOAL_ANSWER_MS:g} is the goal")
        browser.close()


def _say(line: str) -> None:
    Console().print(line, markup=False, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    typer.run(main)
