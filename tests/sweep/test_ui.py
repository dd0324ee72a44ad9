"""`python -m sweep.ui` as a user meets it: the pages behind the links that it prints, in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from patience import LONG_S, until
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from analysis.front.pareto import Front
from sweep import ui
from sweep.presets import demo
from sweep.records.journal import Journal
from sweep.records.owner import owned
from sweep.records.servers import port_for
from sweep.records.tracking import Tracker, TrackingListener
from sweep.trials.ends import TrialEnd
from sweep.trials.suggestions import Suggestion

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TRIALS = {
    "aaaa1111": ("lora", 20.0, 3.0, 100),
    "bbbb2222": ("unet", 10.0, 4.0, 1000),
    "cccc3333": ("dora", 30.0, 2.0, 1000),
}
"""Strategy, fid, vendi and parameters; the last one is beaten."""
PROVENANCE = {"data_fingerprint": "f00d", "command": ["run"], "base": {}, "git_commit": None}


def make_run(out: Path) -> Front:
    """A run directory as a sweep of three trials leaves it; of them the first two are on the front."""
    config = demo()
    journal = Journal.open(out, config, PROVENANCE)
    tracker = Tracker.start(config, out)
    listeners = (journal, TrackingListener(tracker, out, config.reported_objectives()))
    tracker.replayed()
    for number, (trial_id, (strategy, fid, vendi, parameters)) in enumerate(TRIALS.items()):
        folder = out / "trials" / trial_id
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "adapter.json").write_text("{}")
        Image.new("L", (64, 32), 60 * number).save(folder / "samples.png")
        choice = {"strategy": {"name": strategy}, "lr": 1e-3, "batch_size": 16}
        metrics = {"fid_mini": fid, "vendi_mini": vendi, "trainable_parameters": parameters, "epoch_s": 1.0}
        for listener in listeners:
            listener.on_start(Suggestion(trial_id=trial_id, number=number, choice=choice))
            listener.on_report(trial_id, {"epoch": 0, "loss": 0.1, "images_per_s": 9.0, "final": True, **metrics})
            listener.on_end(trial_id, TrialEnd.completed())
    journal.on_baseline({})
    front = journal.finish()
    tracker.finish(front)
    (out / "report.html").write_text("<h1>report</h1>")
    mlflow.set_tracking_uri(None)
    return front


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front]:
    out = tmp_path_factory.mktemp("ui") / "a run"
    return out, make_run(out)


@pytest.fixture(scope="module")
def pages(run: tuple[Path, Front]) -> Iterator[dict[str, str]]:
    """Names and links as printed."""
    port = port_for("port", None, 5900)  # none of those that the system gives to whatever connects meanwhile
    ports = ["--port", str(port), "--dashboard-port", str(port_for("port", None, 5900, [port]))]
    command = [sys.executable, "-m", "sweep.ui", "--run", str(run[0]), *ports]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("Ctrl+C"):
            break
    links = re.findall(r"^(\w+) +((?:http|file)\S+)$", "".join(printed), re.MULTILINE)
    assert links, "".join(printed)
    yield dict(links)
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG_S) == 0
    for link in dict(links).values():
        if link.startswith("http"):
            with pytest.raises(OSError):
                urllib.request.urlopen(link, timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * LONG_S)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1400, "height": 1400}) as context:
        page = context.new_page()
        page.set_default_timeout(1000 * LONG_S)
        yield page


def named(front: Front) -> list[str]:
    return sorted(f"{point.strategy}-{point.trial_id}" for point in front.points)


def test_each_page_has_a_link(pages: dict[str, str], run: tuple[Path, Front]) -> None:
    assert list(pages) == ["Report", "Front", "Compare", "Trials", "Study"]
    assert pages["Report"] == (run[0] / "report.html").as_uri()


def test_the_front_is_shown_with_a_chart_and_films_and_nothing_else(
    pages: dict[str, str], run: tuple[Path, Front], page: Page
) -> None:
    page.goto(pages["Front"])
    page.wait_for_selector(".js-plotly-plot")
    for name in named(run[1]):
        page.get_by_text(name).first.wait_for()
    page.get_by_text("dora-cccc3333").first.wait_for(state="detached")
    page.mouse.move(900, 700)
    films = page.locator("img[src^='blob:'], img[src*='artifact']")

    widths: list[int] = []

    def comes_into_view() -> bool:
        page.mouse.wheel(0, 400)
        shown = "all => all.slice(0, 1).map(image => image.checkVisibility() * image.naturalWidth)"
        widths[:] = films.evaluate_all(shown)
        return any(widths)

    until(comes_into_view)
    assert widths == [64]


def test_mlflows_own_comparison_has_the_runs_of_the_front_and_a_chart(
    pages: dict[str, str], run: tuple[Path, Front], page: Page
) -> None:
    page.goto(pages["Compare"])
    page.get_by_text(f"Comparing {len(run[1].points)} Runs from 1 Experiment").wait_for()
    page.wait_for_selector(".js-plotly-plot")
    for name in named(run[1]):
        page.get_by_text(name).first.wait_for()


def test_all_trials_are_shown_in_the_order_of_the_first_objective(pages: dict[str, str], page: Page) -> None:
    page.goto(pages["Trials"])
    first, second, third = (f"{strategy}-{trial_id}" for trial_id, (strategy, *_) in TRIALS.items())
    page.wait_for_function(  # MLflow shows runs in the order in which they began before it has looked for another
        """names => {
            const places = names.map(name => document.body.innerText.indexOf(name));
            return places[0] >= 0 && places[0] < places[1] && places[1] < places[2];
        }""",
        arg=[second, first, third],
    )


def test_optuna_dashboard_opens_the_study(pages: dict[str, str], run: tuple[Path, Front], page: Page) -> None:
    page.goto(pages["Study"])
    page.get_by_text(run[0].name).first.wait_for()
    page.wait_for_selector(".js-plotly-plot")


def invoke(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(ui.main)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def test_a_port_in_use_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "events.log").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--port", "--dashboard-port"):
            code, said = invoke("--run", str(tmp_path), option, str(port))
            assert code == 1
            assert f"`{option}` must be a free port, but got {port}, on which another program listens." in said


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    code, said = invoke("--run", str(tmp_path))
    assert code == 1
    assert "`--run` must be the directory of a run, but got" in said and "has no events.log" in said


def test_of_a_run_that_goes_on_and_of_a_server_that_refuses_it_says_what_is_missing(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    config = demo()
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})
    Journal.open(tmp_path, config, PROVENANCE).finish()
    with owned(tmp_path):
        assert ui._settle(tmp_path, config, Console()) is True
    assert ui._mlflow(tmp_path, config, []) == {}
    (report, server, dashboard, going_on) = ui._notes(tmp_path, [], True)
    assert report == "the report comes with the first trial that ends."
    assert server == f"the tracking server {uri} does not answer; its links are left out."
    assert "optuna-dashboard is left out" in dashboard and going_on.startswith("the sweep goes on")
