"""All curves of a recording by strategy.

python -m benchmarks.recordings.plot benchmarks/recordings/nih64 --to docs/recorded_curves.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks.recordings import Curve, RecordedCurves, read_recording

COLUMNS = 5
METRIC = "fid_mini"
COLOURS = matplotlib.colormaps["viridis"]


def draw(recording: RecordedCurves) -> Figure:
    """A panel a strategy: Fréchet distance over epochs, coloured by where the learning rate lies in the strategy's range."""
    strategies = sorted({curve.strategy for curve in recording.curves})
    num_rows = -(-len(strategies) // COLUMNS)
    figure = Figure(figsize=(14, 2.7 * num_rows + 0.6), layout="constrained")
    panels = figure.subplots(num_rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for panel, strategy in zip(panels, strategies, strict=False):
        own = [curve for curve in recording.trained() if curve.strategy == strategy]
        _draw_strategy(panel, own, recording)
        panel.set_title(f"{strategy} ({len(own)})", fontsize=10)
    for panel in list(panels):
        panel.set_visible(False)
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=figure.axes, fraction=0.015, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"])
    bar.set_label("learning rate, in the strategy's own span")
    figure.supxlabel("epochs; dashed: further seeds of the same configuration; cross: the training failed", fontsize=10)
    figure.supylabel(f"{METRIC}, {recording.image_counts[-1]} films per condition (lower is better)", fontsize=10)
    return figure


def _draw_strategy(panel: Any, curves: Sequence[Curve], recording: RecordedCurves) -> None:
    rates = [curve.choice["lr"] for curve in curves]
    place = LogNorm(min(rates), max(rates) * (1 + 1e-9))
    for curve in curves:
        points = [point for point in curve.points if point.images_per_condition == recording.image_counts[-1]]
        epochs, values = [one.epoch for one in points], [one.scores[METRIC].value for one in points]
        colour = COLOURS(float(place(curve.choice["lr"])))
        panel.plot(epochs, values, "--" if curve.seed else "-", color=colour, linewidth=0.9 if curve.seed else 1.4)
        if curve.failure is not None:
            panel.plot(epochs[-1:] or [recording.rungs[0]], values[-1:] or [np.nan], "x", color="crimson")
    panel.set(xscale="log", yscale="log")
    panel.set_xticks(recording.rungs, labels=list(map(str, recording.rungs)))
    panel.minorticks_off()
    panel.grid(alpha=0.3)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the recording.")],
    to: Annotated[Path, typer.Option(help="PNG file.")],
) -> None:
    """Draw all curves by strategy."""
    draw(read_recording(folder)).savefig(to, dpi=80)


if __name__ == "__main__":
    typer.run(main)
