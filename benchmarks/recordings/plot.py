"""All curves of a recording by strategy.

python -m benchmarks.recordings.plot benchmarks/recordings/nih64 --to docs/recorded_curves.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.recordings import Curve, RecordedCurves, read_recording

COLUMNS = 5
METRIC = "fid_mini"
COLOURS = matplotlib.colormaps["viridis"]
LEGEND = (
    Line2D([], [], color="0.3", linewidth=1.5, marker="o", markersize=3, label="a configuration, first seed"),
    Line2D([], [], color="0.3", linewidth=0.9, linestyle="--", label="its further seeds"),
    Line2D([], [], color="crimson", linestyle="", marker="x", label="failed training"),
    Line2D([], [], color="0.5", linewidth=1, linestyle=":", label="un-adapted base"),
)


def draw(recording: RecordedCurves) -> Figure:
    """A panel a strategy: Fréchet distance over epochs, coloured by where the learning rate lies in the strategy's span."""
    strategies = sorted({curve.strategy for curve in recording.curves}, key=lambda name: (name.count("+"), name))
    num_rows = -(-len(strategies) // COLUMNS)
    figure = Figure(figsize=(13, 2.5 * num_rows + 1.2), layout="constrained")
    panels = list(figure.subplots(num_rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    for panel, strategy in zip(panels, strategies, strict=False):
        curves = [curve for curve in recording.trained() if curve.strategy == strategy]
        _draw_strategy(panel, curves, recording)
        panel.set_title(f"{strategy} ({len(curves)})", fontsize=10)
    for panel in panels[len(strategies) :]:
        panel.set_visible(False)
    _explain(figure, recording)
    return figure


def _explain(figure: Figure, recording: RecordedCurves) -> None:
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=figure.axes, fraction=0.015, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("learning rate in the strategy's own span", labelpad=-14)
    figure.legend(handles=list(LEGEND), loc="outside upper center", ncols=len(LEGEND), frameon=False, fontsize=9)
    figure.supxlabel("epochs of training", fontsize=10)
    count = recording.image_counts[-1]
    figure.supylabel(f"{METRIC}, at most {count} films per condition (lower is better)", fontsize=10)


def _draw_strategy(panel: Any, curves: Sequence[Curve], recording: RecordedCurves) -> None:
    rates = [curve.choice["lr"] for curve in curves]
    place = LogNorm(min(rates), max(rates) * (1 + 1e-9))
    for curve in curves:
        _draw_curve(panel, curve, recording, COLOURS(float(place(curve.choice["lr"]))))
    base = recording.baseline.get(recording.image_counts[-1])
    if base is not None:
        panel.axhline(base[METRIC].value, color="0.5", linewidth=1, linestyle=":")
    _scale(panel, recording.rungs)


def _draw_curve(panel: Any, curve: Curve, recording: RecordedCurves, colour: Any) -> None:
    points = [point for point in curve.points if point.images_per_condition == recording.image_counts[-1]]
    epochs, values = [point.epoch for point in points], [point.scores[METRIC].value for point in points]
    if curve.seed:
        panel.plot(epochs, values, "--", color=colour, linewidth=0.9)
    else:
        panel.plot(epochs, values, "-o", color=colour, linewidth=1.5, markersize=3)
    if curve.failure is not None:
        place = (epochs[-1], values[-1]) if points else (recording.rungs[0], 1.0)
        transform = panel.transData if points else panel.get_xaxis_transform()
        panel.plot(*place, "x", color="crimson", transform=transform, clip_on=False)


def _scale(panel: Any, rungs: Sequence[int]) -> None:
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(rungs, labels=list(map(str, rungs)))
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the recording.")],
    to: Annotated[Path, typer.Option(help="PNG file.")],
) -> None:
    """Draw all curves by strategy."""
    draw(read_recording(folder)).savefig(to, dpi=100)


if __name__ == "__main__":
    typer.run(main)
