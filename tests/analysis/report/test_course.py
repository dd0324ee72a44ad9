"""How a sweep went, on the page: shares that follow from the trials, and nothing where there is nothing to say."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams

from analysis.front.pareto import Front, Objective
from analysis.report.course import attainments, course_section
from analysis.report.plots import STYLE, styled
from analysis.run_folder import RunFolder

OBJECTIVES = (Objective("fid_mini", "min"), Objective("vendi_mini", "max"))
TRIALS = pd.DataFrame(
    {
        "trial_id": ["a", "b", "c", "d", "e"],
        "strategy": ["lora", "unet", "lora", "<b>", "unet"],
        "status": ["completed", "completed", "stopped", "failed", "completed"],
        "fid_mini": [2.0, 1.0, 0.5, 3.0, 2.5],
        "vendi_mini": [2.0, 1.0, 9.0, 0.5, 0.2],
    }
)
RESULTS = pd.DataFrame({"trial_id": ["a", "b", "e"], "epoch": 0, "epoch_s": 3600.0})


def _run(trials: pd.DataFrame, objectives: tuple[Objective, ...] = OBJECTIVES) -> RunFolder:
    front = Front(objectives=objectives, points=())
    return RunFolder(folder=Path("run"), trials=trials, results=RESULTS, front=front, config={})


def test_what_each_strategy_reached() -> None:
    """Reference (2.1, 0.9): each of a and b dominates 0.11, both 0.21; what was stopped or failed counts nothing."""
    first, second, failed = attainments(TRIALS, OBJECTIVES)
    assert (first.strategy, first.completed, first.stopped, first.best) == ("lora", 1, 1, (2.0, 2.0))
    assert (second.strategy, second.completed, second.stopped, second.best) == ("unet", 2, 0, (1.0, 1.0))
    assert first.share == pytest.approx(0.11 / 0.21) == second.share
    assert (failed.strategy, failed.best, failed.share) == ("<b>", (), 0.0)


def test_the_section_has_the_plot_and_a_row_a_strategy() -> None:
    pictures: list[bytes] = []

    def embedded(content: bytes, kind: str) -> str:
        pictures.append(content)
        return f"data:image/{kind};base64,"

    page = course_section(_run(TRIALS), embedded)
    assert len(pictures) == 1 and b"<svg" in pictures[0]
    assert page.count("<tr>") == 4 and "&lt;b&gt;" in page and "52 %" in page
    assert "best FID (mini), lower is better" in page


def test_there_is_nothing_to_say_of_few_trials_or_of_one_objective() -> None:
    for run in (_run(TRIALS.head(2)), _run(TRIALS, OBJECTIVES[:1]), _run(TRIALS.assign(status="failed"))):
        assert course_section(run, lambda content, kind: "") == ""


@pytest.mark.slow
def test_what_objectives_depend_on_is_left_out_where_it_should_not_take_seconds() -> None:
    many = pd.concat([TRIALS] * 5, ignore_index=True)
    many = many.assign(
        trial_id=[f"t{place}" for place in range(len(many))],
        status="completed",
        **{
            "param/lr": np.linspace(1e-4, 1e-2, len(many)),
            "fid_mini": np.arange(1.0, len(many) + 1),
            "vendi_mini": 2.0,
        },
    )
    results = pd.DataFrame({"trial_id": many["trial_id"], "epoch": 0, "epoch_s": 3600.0})
    run = replace(_run(many), results=results)
    whole, quick = (course_section(run, lambda content, kind: "", with_importances=asked) for asked in (True, False))
    assert "depends on" in whole and "depends on" not in quick and whole.startswith(quick) and quick


def test_plots_of_two_threads_have_their_style_and_leave_matplotlib_as_it_was() -> None:
    before, inside, sizes = dict(rcParams), threading.Event(), list[object]()

    def draw() -> None:
        with styled():
            inside.set()
            time.sleep(0.1)
            sizes.append(rcParams["font.size"])

    first, second = threading.Thread(target=draw), threading.Thread(target=draw)
    first.start()
    inside.wait(60)
    second.start()
    first.join(60)
    second.join(60)
    assert sizes == [STYLE["font.size"]] * 2 and dict(rcParams) == before
