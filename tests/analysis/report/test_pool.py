"""Several runs as one field of trials, and which of them cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import typer
from PIL import Image
from synthetic_runs import (
    CONDITIONS,
    OBJECTIVES,
    coded_sheet,
    film_grey,
    quick_report,
    rung_run,
    synthetic_run,
    synthetic_trials,
)
from typer.testing import CliRunner

from analysis.front.finding import find_front
from analysis.report.__main__ import main
from analysis.report.instrument.content import content, sheet_layout, sheets
from analysis.report.instrument.library import vega
from analysis.report.instrument.page import scripts
from analysis.report.instrument.pool import Pool
from analysis.report.pictures import picture
from analysis.run_folder import RunFolder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = tmp_path_factory.mktemp("runs")
    for name, seed in (("one", 0), ("two", 5)):
        rung_run(folders / name, seed=seed)
    return folders


@pytest.fixture(scope="module")
def two(folders: Path) -> list[RunFolder]:
    """Two runs, to be read."""
    return [RunFolder.open(folders / name) for name in ("one", "two")]


@pytest.fixture
def copies(folders: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The folders of two runs, to be changed."""
    shutil.copytree(folders, tmp_path / "runs")
    return tmp_path / "runs" / "one", tmp_path / "runs" / "two"


def run_without_plots(folder: Path, seed: int) -> Path:
    """Of one objective and without reports: nothing is to be drawn, which takes most of the time of a page."""
    trials = synthetic_trials(4, seed)
    synthetic_run(folder, trials)
    (folder / "results.parquet").unlink()
    find_front(trials, OBJECTIVES[:1]).write(folder / "pareto.json")
    (folder / "provenance.json").write_text(json.dumps({"data_fingerprint": "one"}))
    return folder


def test_one_run_keeps_its_front_and_two_have_that_of_all_their_trials(two: list[RunFolder]) -> None:
    alone = Pool.of(two[:1])
    assert [point.trial_id for point in alone.front.points] == [f"0:{point.trial_id}" for point in two[0].front.points]
    assert alone.front.probabilities == {f"0:{name}": p for name, p in two[0].front.probabilities.items()}
    both = Pool.of(two)
    renamed = [run.trials.assign(trial_id=f"{place}:" + run.trials["trial_id"]) for place, run in enumerate(two)]
    expected = find_front(pd.concat(renamed, ignore_index=True), OBJECTIVES)
    assert [point.trial_id for point in both.front.points] == [point.trial_id for point in expected.points]
    assert set(both.front.probabilities) == {
        f"{place}:{row}" for place, run in enumerate(two) for row in run.completed()["trial_id"]
    }


def test_a_run_with_itself_has_every_point_twice(two: list[RunFolder]) -> None:
    points = Pool.of([two[0], two[0]]).front.points
    names = [point.trial_id for point in two[0].front.points]
    assert sorted(point.trial_id for point in points) == sorted(f"{place}:{name}" for place in (0, 1) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("provenance.json", {"data_fingerprint": "other"}, "of the same data"),
        ("provenance.json", {}, "of the same data"),
        ("config.json", {"evaluation": {"images_per_condition": 7}}, "of the same images per condition"),
        ("pareto.json", {"objectives": [{"name": "fid_mini", "direction": "min"}]}, "of the same objectives"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    copies: tuple[Path, Path], file: str, change: dict[str, object], said: str
) -> None:
    folder, other = copies
    path = other / file
    kept = json.loads(path.read_text()) if file == "pareto.json" else {}
    path.write_text(json.dumps({**kept, **change}))
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--run", str(folder), "--with", str(other)])
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()) and "Make a page for each" in result.stderr
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_a_page_that_is_rewritten_keeps_the_runs_that_it_was_asked_to_show(tmp_path: Path) -> None:
    folder, other = (run_without_plots(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 5)))
    name = f'"folder": "{other.resolve()}"'
    assert name not in quick_report(folder).read_text() and name in quick_report(folder, [other]).read_text()
    assert name in quick_report(folder).read_text()  # as when a trial ends
    (other / "provenance.json").write_text(json.dumps({"data_fingerprint": "another"}))
    assert name not in quick_report(folder).read_text()
    (other / "provenance.json").write_text(json.dumps({"data_fingerprint": "one"}))
    quick_report(folder, [])
    assert name not in quick_report(folder).read_text()


def test_films_are_found_on_sheets_as_the_sweep_lays_them_out(two: list[RunFolder]) -> None:
    layout = sheet_layout(two[0], len(CONDITIONS))
    assert layout is not None and layout["columns"] == 4
    sheet = coded_sheet(3)
    assert (layout["width"], layout["height"]) == sheet.size
    for row in range(len(CONDITIONS)):
        for column in range(4):
            left = layout["gap"] + column * (layout["film"] + layout["gap"])
            top = row * layout["row"] + layout["top"]
            film = sheet.crop((left, top, left + layout["film"], top + layout["film"]))
            assert set(film.convert("L").getdata()) == {film_grey(3, row, column)}


def test_sheets_that_are_laid_out_otherwise_are_shown_whole(tmp_path: Path) -> None:
    run = RunFolder.open(synthetic_run(tmp_path, synthetic_trials(3)))
    assert sheet_layout(run, len(CONDITIONS)) is None and len(sheets(Pool.of([run]))) == 5


@pytest.mark.slow
def test_what_the_page_is_told_is_what_is_in_the_tables(two: list[RunFolder]) -> None:
    told = content(Pool.of(two), ["loss", "early_fid_mini"])
    assert len(told["trials"]) == sum(len(run.trials) for run in two)
    rows = {trial["key"]: trial for trial in told["trials"]}
    stopped = rows["1:00003"]
    assert (stopped["status"], stopped["rung"], stopped["values"]["fid_mini"]) == ("stopped", 1.0, None)
    assert stopped["early"]["fid_mini"] == pytest.approx(two[1].trials.set_index("trial_id")["early_fid_mini"]["00003"])
    assert stopped["large"] == "../two/trials/00003/samples.png"
    assert {objective["log"] for objective in told["objectives"] if objective["name"] == "trainable_parameters"} == {
        True
    }
    first, second = (len(run.results) for run in two)
    assert len(told["curves"][0]["points"]) == first + second
    json.dumps(told, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "gpus"), [(4, 2.0), ([1, 4], 2.0), ([4, 1], 2.0)])
def test_hours_are_those_of_all_gpus_that_a_trial_may_have(
    tmp_path: Path, workers: int | list[int], gpus: float
) -> None:
    folder = rung_run(tmp_path / "run")
    compute = {"workers_per_trial": workers, "gpus_per_worker": 0.5}
    (folder / "config.json").write_text(json.dumps({"preset": "demo", "base": "mini", "compute": compute}))
    assert [run["gpus"] for run in content(Pool.of([RunFolder.open(folder)]), [])["runs"]] == [gpus]


def test_values_that_are_not_finite_are_none_on_the_page(tmp_path: Path) -> None:
    folder = rung_run(tmp_path / "run")
    results = pd.read_parquet(folder / "results.parquet")
    results.loc[3, "loss"] = float("inf")  # a trial that diverged
    results.to_parquet(folder / "results.parquet")
    front = json.loads((folder / "pareto.json").read_text())
    front["points"][0]["errors"] = {"fid_mini": float("nan")}
    (folder / "pareto.json").write_text(json.dumps(front))
    told = content(Pool.of([RunFolder.open(folder)]), ["loss"])
    json.dumps(told, allow_nan=False)
    assert len(told["curves"][0]["points"]) == len(results) - 1
    (errors,) = [trial["errors"] for trial in told["trials"] if trial["id"] == front["points"][0]["trial_id"]]
    assert errors == {"fid_mini": None}


def test_names_of_trials_are_text_on_the_page(tmp_path: Path) -> None:
    markup = scripts(
        Pool.of([RunFolder.open(rung_run(tmp_path / "run"))]), [], {'0:"><b>': tmp_path / "run" / "reference.png"}
    )
    assert 'data-sheet="0:&quot;&gt;&lt;b&gt;"' in markup


@pytest.mark.slow
def test_a_picture_is_at_most_sixty_kilobytes_whatever_is_in_it(tmp_path: Path) -> None:
    import base64

    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (900, 1400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    head, _, content = picture(tmp_path / "noise.png").partition(",")
    assert head == "data:image/webp;base64" and 10_000 < len(base64.b64decode(content)) <= 60_000
    Image.fromarray(noise[:8, :8]).save(tmp_path / "noise.png")
    assert len(picture(tmp_path / "noise.png")) < 1000  # another picture under the same name


@pytest.mark.slow
def test_the_library_is_kept_for_the_next_process_with_its_licences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = vega()
    assert bundle.startswith("/*\nThis page contains Vega") and "THE SOFTWARE IS PROVIDED" in bundle
    assert len(bundle) < 1_200_000 and "</script" not in bundle
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vega.cache_clear()
    assert vega() == bundle
    (kept,) = (tmp_path / "radiograph-sweep").iterdir()
    kept.write_text("window.vegaEmbed = 1;")
    vega.cache_clear()
    assert "window.vegaEmbed = 1;" in vega()
    vega.cache_clear()


def test_a_library_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("analysis.report.instrument.library.COMMAND", "import time; time.sleep(20)")
    monkeypatch.setattr("analysis.report.instrument.library.PATIENCE_S", 0.2, raising=False)
    vega.cache_clear()
    with pytest.raises(RuntimeError, match="timed out"):
        vega()
    monkeypatch.undo()
    vega.cache_clear()


@pytest.mark.slow
def test_without_the_library_the_page_is_still_whole_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = synthetic_run(tmp_path / "run", synthetic_trials(3))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("analysis.report.instrument.library.COMMAND", "raise SystemExit('no wheel for this machine')")
    vega.cache_clear()
    text = quick_report(run).read_text(encoding="utf-8")
    assert "without its instrument" in text and "no wheel for this machine" in text and "<h2>All trials</h2>" in text
    assert "<script>" not in text
    monkeypatch.undo()
    vega.cache_clear()
