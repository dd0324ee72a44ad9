"""Learning curves: a line at each rung, and a cross where a trial was stopped, read from the picture itself."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.front.pareto import Front, Objective
from analysis.report.curves import curve_columns, curve_plot, rung_epochs
from analysis.report.plots import INK, handle, legend_columns, more_height, styled
from analysis.run_folder import RunFolder

SVG = {"svg": "http://www.w3.org/2000/svg"}
TRIALS = pd.DataFrame({"trial_id": ["a", "b"], "strategy": ["lora", "unet"], "status": ["completed", "stopped"]})
RESULTS = pd.DataFrame(
    {
        "trial_id": ["a"] * 6 + ["b"] * 3,
        "epoch": [0, 1, 2, 3, 4, 5, 0, 1, 2],
        "loss": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.95, 0.9, 0.85],
        "early_fid_mini": [80, np.nan, 60, np.nan, np.nan, np.nan, 90, np.nan, 70],
        "fid_mini": [np.nan] * 5 + [50.0] + [np.nan] * 3,
    }
)


def run_of(trials: pd.DataFrame, results: pd.DataFrame) -> RunFolder:
    front = Front(objectives=(Objective("fid_mini", "min"), Objective("vendi_mini", "max")), points=())
    return RunFolder(folder=Path("run"), trials=trials, results=results, front=front, config={})


def drawn(content: bytes | None) -> dict[str, ElementTree.Element]:
    assert content is not None
    groups = ElementTree.fromstring(content).iterfind(".//svg:g[@id]", SVG)
    return {group.attrib["id"]: group for group in groups}


def places(group: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the marks of a line are, in the picture."""
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in group.iterfind(".//svg:use", SVG)]


def test_a_dotted_line_stands_at_each_rung_and_a_cross_at_a_stopped_trials_last_point() -> None:
    run = run_of(TRIALS, RESULTS)
    assert curve_columns(run) == ["loss", "early_fid_mini"] and rung_epochs(RESULTS) == [0, 2]
    parts = drawn(curve_plot(run))
    for column in ("loss", "early_fid_mini"):
        stops = {name for name in parts if name.startswith(f"{column} stop of ")}
        assert stops == {f"{column} stop of b"}
        assert places(parts[f"{column} stop of b"]) == places(parts[f"{column} of b"])[-1:]
        assert {name for name in parts if name.startswith(f"{column} rung ")} == {
            f"{column} rung 0",
            f"{column} rung 2",
        }
    (line,) = parts["loss rung 2"].iterfind(".//svg:path", SVG)
    (x, _), *_ = re.findall(r"[ML] ([\d.]+) ([\d.]+)", line.attrib["d"])
    assert float(x) == pytest.approx(places(parts["loss of a"])[2][0])


def test_without_rungs_and_stops_there_are_the_curves_alone() -> None:
    plain = drawn(curve_plot(run_of(TRIALS.assign(status="completed"), RESULTS.drop(columns="early_fid_mini"))))
    assert "loss of a" in plain and not any(" rung " in name or " stop of " in name for name in plain)
    assert curve_plot(run_of(TRIALS, RESULTS[["trial_id", "epoch"]])) is None


@pytest.mark.parametrize(("across", "num_columns"), [(4.4, 2), (12.6, 6)])
def test_a_legend_of_many_strategies_stays_inside_the_picture(across: float, num_columns: int) -> None:
    names = [f"lora+strategy_{number:02}" for number in range(14)]
    handles = [handle(name, INK, "o") for name in names]
    with styled():
        figure = Figure(figsize=(across, 3.4 + more_height(handles, across)), layout="constrained")
        figure.add_subplot()
        columns = legend_columns(handles, across)
        legend = figure.legend(handles=handles, loc="outside upper center", ncols=columns)
        figure.canvas.draw()
        box = legend.get_window_extent()
    assert columns == num_columns
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert figure.axes[0].get_position().height * figure.get_figheight() > 2.0, "the legend's rows are not the panel's"
    assert legend_columns(handles[:3], 12.6) == 3 and more_height(handles[:3], 12.6) == 0
