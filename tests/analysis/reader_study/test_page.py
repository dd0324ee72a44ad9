"""The page in a browser, by keyboard alone; what it gives away; and the command from films to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from click.testing import Result
from patience import LONG_S
from playwright.sync_api import Page, sync_playwright
from typer.testing import CliRunner

from analysis.front.pareto import Front, FrontPoint, Objective
from analysis.reader_study import __main__ as command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</script><script>alert('x')</script>"
CONDITIONS = ("Edema", EVIL)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose knee was evaluated: generated films are dark, real ones bright, so that the test can tell."""
    folder = tmp_path / "run"
    evaluated = folder / "evaluation" / "a1"
    evaluated.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 20, (24, 64, 64), np.uint8)
    labels = np.array([json.dumps([CONDITIONS[row % 2]]) for row in range(24)])
    np.savez_compressed(evaluated / "films.npz", generated=noise + 40, real=noise + 160, labels=labels)
    (folder / "config.json").write_text(json.dumps({"base": "mini"}))
    row = {"trial_id": "a1", "status": "completed", "strategy": "lora", "fid_mini": 3.0}
    pd.DataFrame([row]).to_parquet(folder / "trials.parquet")
    point = FrontPoint(trial_id="a1", strategy="lora", values={"fid_mini": 3.0}, params={}, knee=True)
    Front(objectives=(Objective("fid_mini", "min"),), points=(point,)).write(folder / "pareto.json")
    return folder


def invoke(run: Path, to: Path, *options: str) -> Result:
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, ["--run", str(run), "--to", str(to), *options])


def read_all(page: Page, num: int) -> None:
    """A reader who takes bright films for real and sees the first finding on the first film alone."""
    page.keyboard.type("Dr A/b")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert "Say first how real it looks" in page.inner_text("#hint")
    page.keyboard.press("a")
    for number in range(num):
        bright = page.evaluate(
            "async () => { const i = document.getElementById('picture'); await i.decode(); const c = document.createElement('canvas');"
            "c.width = c.height = 1; const x = c.getContext('2d'); x.drawImage(i, 0, 0, 1, 1); return x.getImageData(0, 0, 1, 1).data[0]; }"
        )
        page.keyboard.press("4" if bright > 100 else "1")
        if number == 1:  # back, where the answer still stands, and forth
            page.keyboard.press("Backspace")
            assert page.get_attribute("#findings button >> nth=0", "aria-pressed") == "true"
            page.keyboard.press("Enter")
        page.keyboard.press("Enter")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_study_is_made_read_by_keyboard_alone_and_scored(run: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    assert invoke(run, study, "--num", "12").exit_code == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * LONG_S)
        page = browser.new_page()
        page.set_default_timeout(1000 * LONG_S)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        page.goto((study / "index.html").as_uri())
        read_all(page, 12)
        with page.expect_download() as download:
            page.keyboard.press("s")
        assert download.value.suggested_filename == "answers-Dr_A_b.json"
        download.value.save_as(study / "answers-Dr_A_b.json")
        browser.close()
    assert errors == []
    saved = json.loads((study / "answers-Dr_A_b.json").read_text())
    assert [answer["findings"] for answer in saved["answers"]] == [[EVIL], *([[]] * 11)]
    result = invoke(run, study, "--score")
    assert result.exit_code == 0, result.output
    scores = json.loads((run / "reader_study.json").read_text())
    assert (scores["readers"]["Dr A/b"]["count"], scores["readers"]["Dr A/b"]["num"]) == (12, 12)
    report = (run / "report.html").read_text()
    assert "<h2>Reader study</h2>" in report and "1.00 [0.76, 1.00]" in report and EVIL not in report


def test_the_page_does_not_give_away_what_is_real(run: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    assert invoke(run, study, "--num", "12").exit_code == 0
    text = (study / "index.html").read_text()
    content = json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])
    key = json.loads((study / "key.json").read_text())
    assert [film["id"] for film in content["films"]] == [film["id"] for film in key["films"]]
    assert all(film.keys() == {"id", "source"} for film in content["films"])
    assert "a1" not in {content["study"], *content["conditions"]} and "http" not in text
    assert {film["kind"] for film in key["films"]} == {"real", "generated"}


def test_films_are_those_of_any_trial_that_export_would_pick(run: Path, tmp_path: Path) -> None:
    assert invoke(run, tmp_path / "study", "--num", "12", "--pick", "best:fid where fid <= 1e1").exit_code == 0
    assert json.loads((tmp_path / "study" / "key.json").read_text())["trial_id"] == "a1"
    assert "fid_mini <= 2" in invoke(run, tmp_path / "none", "--pick", "best:fid where fid <= 2").stderr


def test_another_trials_or_another_choice_of_films_is_another_study(run: Path, tmp_path: Path) -> None:
    """So that no browser shows one study's answers in another, and none are scored as the other's."""
    shutil.copytree(run / "evaluation" / "a1", run / "evaluation" / "b2")
    rows = pd.read_parquet(run / "trials.parquet")
    pd.concat([rows, rows.assign(trial_id="b2")]).to_parquet(run / "trials.parquet")
    others = {"a": (), "b": ("--pick", "trial:b2"), "c": ("--num", "14"), "d": ("--seed", "1")}
    for name, options in others.items():
        assert invoke(run, tmp_path / name, *("--num", "12", *options)).exit_code == 0
    assert invoke(run, tmp_path / "again", "--num", "12").exit_code == 0
    studies = {name: json.loads((tmp_path / name / "key.json").read_text())["study"] for name in (*others, "again")}
    assert len(set(studies.values())) == 4 and studies["again"] == studies["a"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pick", "kne"), "`--pick` must be a known name, but got 'kne'"),
        (("--pick", "trial:a2"), "`--pick trial:ID` must be a known name, but got 'a2'"),
        (("--num", "26"), "`--num` must be at most the 24 captions, but got 26"),
        (("--num", "5"), "`--num` must be an even number"),
        (("--score",), "must be a study's folder"),
    ],
)
def test_wrong_input_is_answered_and_leaves_nothing(
    run: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    result = invoke(run, tmp_path / "study", *options)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "study").exists()


def test_a_trial_without_films_and_a_folder_with_some_are_answered(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert "must be a new or empty folder" in invoke(run, tmp_path).stderr
    (run / "evaluation" / "a1" / "films.npz").unlink()
    assert "must be a trial with a final evaluation" in " ".join(invoke(run, tmp_path / "study").stderr.split())
