"""The report: a synthetic run directory becomes one page that stands alone and trusts no string."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import typer
from PIL import Image
from synthetic_runs import EVIL, OBJECTIVES, quick_report, synthetic_run, synthetic_trials
from typer.testing import CliRunner

from analysis.front.finding import find_front
from analysis.front.noise import Evidence
from analysis.report import draw_front, write_report
from analysis.report.__main__ import main
from analysis.report.words import label, number, parameters

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, to be read."""
    return synthetic_run(tmp_path_factory.mktemp("run"), synthetic_trials())


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = synthetic_run(tmp_path_factory.mktemp("small"), synthetic_trials(6))
    return quick_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run that read an earlier one and gave its trials a budget."""
    run = synthetic_run(tmp_path_factory.mktemp("told"), synthetic_trials(6))
    (run / "earlier.json").write_text(json.dumps({"sweeps": [f"{EVIL} differs in data"]}))
    config = json.loads((run / "config.json").read_text())
    config["search"] = {"budget": {"steps": None, "images": 20_000, "seconds": None}}
    (run / "config.json").write_text(json.dumps(config))
    return quick_report(run).read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Checks that tags close in order, and gathers addresses and tags."""

    VOID = frozenset({"meta", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


@pytest.mark.slow
def test_page_is_well_formed_and_stands_alone(page: str) -> None:
    parsed = _Page(page)
    assert parsed.open_tags == []
    assert parsed.addresses
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert not {"link", "iframe"} & set(parsed.tags)
    assert "url(" not in page.partition('<script type="application/json"')[0]


@pytest.mark.slow
def test_strings_from_the_run_are_escaped(page: str) -> None:
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 2


@pytest.mark.slow
def test_page_shows_every_trial_and_the_front(page: str) -> None:
    trials = synthetic_trials()
    front = find_front(trials, OBJECTIVES)
    assert front.knee is not None
    for trial_id in trials["trial_id"]:
        assert f"<code>{trial_id}</code>" in page
    assert f"Knee: {front.knee.strategy}, trial {front.knee.trial_id}" in page
    assert "FloatingPointError" in page
    assert "no reason was recorded" in page
    assert "By condition" in page and "Pleural Effusion" in page
    assert "192 generated against 192 held-out films" in page
    assert "Learning curves" in page
    assert "Held-out films" in page and "before any adaptation" in page
    assert 'the model before any adaptation</td><td class="n">987.5</td>' in page
    assert "--pick knee --format pipeline" in page


def test_embedded_pictures_are_whole_and_not_huge(page: str) -> None:
    contents = [base64.b64decode(content) for content in re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)]
    assert len(contents) == 2 + len(synthetic_trials())  # of every trial once, and what they are compared with
    assert max(map(len, contents)) <= 60_000
    pictures = [Image.open(io.BytesIO(content)) for content in contents]
    for picture in pictures:
        picture.load()
    assert max(picture.width for picture in pictures) == 1100
    assert page.count('<img alt="" data-sheet') == 2 + len(find_front(synthetic_trials(), OBJECTIVES).points)


@pytest.mark.slow
def test_maps_of_ranks_are_shown_for_the_front_only(tmp_path: Path, page: str) -> None:
    run = synthetic_run(tmp_path, synthetic_trials())
    assert "<h2>Ranks</h2>" not in page
    best, other = (
        next(name for name in synthetic_trials()["trial_id"] if (name in on_front) == wanted)
        for on_front in [{point.trial_id for point in find_front(synthetic_trials(), OBJECTIVES).points}]
        for wanted in (True, False)
    )
    for trial_id in (best, other):
        ranks = {"layers": ["unet.mid_block.attentions.0.proj_in"], "steps": [0, 41], "ranks": [[1], [2]]}
        (run / "trials" / trial_id / "ranks.json").write_text(json.dumps(ranks))
    text = quick_report(run).read_text(encoding="utf-8")
    assert text.count('alt="Ranks by layer"') == 1
    assert f"trial {best}." in text.split("<h2>Ranks</h2>")[1].split("</figure>")[0]


@pytest.mark.slow
def test_rebuilding_gives_the_same_page(run: Path, page: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == page


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["rad_dino", "xrv-mimic_nb"])
def test_the_page_is_the_same_with_an_extractor_of_any_name(tmp_path: Path, extractor: str) -> None:
    run = synthetic_run(tmp_path, synthetic_trials(6))
    plain = write_report(run).read_text(encoding="utf-8")
    for file in ("trials.parquet", "results.parquet"):
        table = pd.read_parquet(run / file)
        table.rename(columns=lambda name: str(name).replace("_mini", f"_{extractor}")).to_parquet(run / file)
    for file in ("pareto.json", "baseline.json"):
        (run / file).write_text((run / file).read_text().replace("_mini", f"_{extractor}"))
    other = write_report(run).read_text(encoding="utf-8")
    assert f"FID ({extractor})" in other and "(mini)" not in other
    assert _without_pictures(other).replace(extractor, "mini") == _without_pictures(plain)


def _without_pictures(page: str) -> str:
    return re.sub(r"data:image/[^\"]*", "", page)


def test_a_sweep_without_a_completed_trial_still_has_a_page(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, synthetic_trials(4).assign(status="failed"))
    (run / "results.parquet").unlink()
    text = quick_report(run).read_text(encoding="utf-8")
    assert "No trial completed with all objectives" in text
    assert "Trade-offs" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("num_objectives", "is_shown"), [(1, False), (2, True)])
def test_trade_offs_are_of_two_objectives_and_more(tmp_path: Path, num_objectives: int, is_shown: bool) -> None:
    trials = synthetic_trials(6)
    run = synthetic_run(tmp_path, trials)
    find_front(trials, OBJECTIVES[:num_objectives]).write(run / "pareto.json")
    assert ("<h2>Trade-offs</h2>" in quick_report(run).read_text(encoding="utf-8")) is is_shown


@pytest.mark.slow
def test_a_stopped_trial_is_shown_with_its_rung_and_is_no_point(tmp_path: Path, small_page: str) -> None:
    trials = synthetic_trials(6).assign(rung=None)
    ideal = {"fid_mini": 1e-3, "vendi_mini": 99.0, "trainable_parameters": 1, "epoch_s": 1e-3}
    trials.loc[0, ["status", "reason", "rung", *ideal]] = ["stopped", f"it gains {EVIL}", 1, *ideal.values()]
    run = synthetic_run(tmp_path, trials.astype({"rung": "Int64"}))
    text = quick_report(run).read_text(encoding="utf-8")
    assert "<b>1</b><span>of them stopped early</span>" in text and "<b>2</b><span>of them failed</span>" in text
    row = text.split("<h2>All trials</h2>")[1].split("<code>00000</code>")[1].split("</tr>")[0]
    assert '<span class="tag stopped">stopped</span> at rung 1: it gains &lt;script&gt;' in row and "0.001" in row
    assert "<code>00000</code>" not in text.split("<h2>All trials</h2>")[0]
    assert "stopped early" not in small_page


@pytest.mark.slow
def test_front_plot_is_a_picture(tmp_path: Path) -> None:
    trials = synthetic_trials()
    front = find_front(trials, OBJECTIVES, Evidence(baseline={"fid_mini": 12.0, "vendi_mini": 3.0}))
    assert front.base and front.points
    draw_front(trials, front, tmp_path / "pareto.png")
    with Image.open(tmp_path / "pareto.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1200
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("num_trials", [1, 3])
def test_front_plot_of_few_trials(tmp_path: Path, num_trials: int) -> None:
    trials = synthetic_trials(8).head(num_trials)
    draw_front(trials, find_front(trials, OBJECTIVES[:2]), tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 1000


def test_front_plot_needs_two_objectives(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`objectives` must be at least 2 for a trade-off, but got 1"):
        draw_front(synthetic_trials(), find_front(synthetic_trials(), OBJECTIVES[:1]), tmp_path / "pareto.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_command_rebuilds_page_and_plot(tmp_path: Path) -> None:
    run = synthetic_run(tmp_path, synthetic_trials(6))
    command = [sys.executable, "-m", "analysis.report", "--run", str(run)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "report.html" in result.stdout
    assert (run / "report.html").exists()
    assert (run / "pareto.png").exists()


def test_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--run", str(tmp_path / "nowhere")])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "`--run` must be a run directory, but got" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["trials.parquet", "results.parquet", "pareto.json", "config.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    run = synthetic_run(tmp_path, synthetic_trials(3))
    (run / name).write_bytes(b"\x00 not this")
    with pytest.raises(ValueError, match=f"`{re.escape(name)}` must"):
        quick_report(run)


@pytest.mark.parametrize("name", ["trials.parquet", "pareto.json", "config.json"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    run = synthetic_run(tmp_path, synthetic_trials(3))
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"of a finished run.* has no {re.escape(name)}"):
        quick_report(run)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (1594368.0, "1,594,368"),
        (3.14159, "3.142"),
        (1e-5, "1e-05"),
        (float("nan"), "–"),
        (None, "–"),
        (float("inf"), "∞"),
        (123456.7, "123,457"),
        (True, "True"),
        ("cosine", "cosine"),
    ],
)
def test_numbers_for_people(value: object, text: str) -> None:
    assert number(value) == text


def test_names_for_people() -> None:
    assert label("fid_mini") == "FID (mini)"
    assert label("trainable_parameters") == "trainable parameters"
    assert label("precision_xrv") == "precision (xrv)"
    assert label("sharpness_xrv") == "sharpness xrv"
    params = {"param/strategy": "lora", "param/lora/rank": 8, "lr": 1e-4, "batch_size": 4, "x": None}
    assert parameters(params, "lora") == "rank 8, lr 0.0001, batch size 4"


@pytest.mark.slow
def test_what_became_of_earlier_sweeps_is_told(told: str, page: str) -> None:
    assert "What earlier sweeps knew" in told and f"<li>{html.escape(EVIL)} differs in data.</li>" in told
    assert EVIL not in told and "What earlier sweeps knew" not in page


@pytest.mark.slow
def test_what_each_trial_could_spend_is_told_where_it_was_not_epochs(told: str, page: str) -> None:
    assert "Each trial was given 20,000 training images." in told and "Each trial was given" not in page
