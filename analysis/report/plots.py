"""Plots of a sweep."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.files import whole_file
from analysis.front.objectives import COSTS
from analysis.front.pareto import Front, Objective, pareto_mask
from analysis.front.statuses import COMPLETED, with_status
from analysis.report.words import axis_label

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#333333", "#B3A100")
"""Okabe and Ito's colours, told apart by colour-blind readers, the palest darkened or replaced."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK, QUIET = "#24292f", "#8b949e"
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#c9ced6",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff3",
    "grid.linewidth": 0.8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "legend.frameon": False,
    "svg.hashsalt": "report",
}
LEGEND_INCHES, INCHES_A_LETTER, INCHES_A_ROW = 0.6, 0.075, 0.19
"""What a mark with the gaps around it, a letter, and a row of a legend take at the size of these letters."""
_DRAWING = threading.RLock()
LOG_FROM_RATIO = 30
DOTS_AN_INCH = 150.0


def draw_front(trials: pd.DataFrame, front: Front, to: Path) -> None:
    """Write the trade-offs of a sweep as PNG.

    Args:
        trials: one row a trial, with `trial_id`, `strategy` and a column for each objective.
        front: their front over two or more objectives; the first is drawn against each of the others.
        to: the file.
    """
    content = trade_offs(trials, front, form="png")
    with whole_file(to) as file:
        file.write(content)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the plots' style in the block, one thread at a time: Matplotlib's settings are those of the process."""
    with _DRAWING, rc_context(STYLE):
        yield


def trade_offs(trials: pd.DataFrame, front: Front, *, form: str = "svg") -> bytes:
    """The first objective against each of the others, one panel each, as an image file's content.

    Filled points are on the front over all objectives, pale ones may be, as far as noise lets one see; the solid line is the
    front over the two of its panel, the dotted one what the un-adapted base scores.

    Args:
        trials: one row a trial, with a column for each objective.
        front: of these trials.
        form: the picture's format: `svg` or `png`.
    """
    objectives = front.objectives
    if len(objectives) < 2:
        raise ValueError(f"`objectives` must be at least 2 for a trade-off, but got {len(objectives)}. Name another.")
    shown = _finite(trials, [objective.name for objective in objectives])
    styles = strategy_styles(trials["strategy"])
    looks = _looks(shown, front, styles)
    num_panels = len(objectives) - 1
    with styled():
        handles, width = _legend(styles), 4.1 * num_panels + 0.3
        figure = Figure(figsize=(width, 4.1 + more_height(handles, width)), layout="constrained")
        for axes, other in zip(np.ravel(figure.subplots(1, num_panels, sharey=True)), objectives[1:], strict=True):
            _draw_pair_front(axes, shown, (other, objectives[0]))
            _draw_points(axes, shown, (other, objectives[0]), looks)
            _draw_base(axes, front, (other, objectives[0]))
            _mark_knee(axes, front, (other, objectives[0]))
        for axes in figure.axes[1:]:
            axes.set_ylabel("")
        figure.legend(handles=handles, loc="outside upper center", ncols=legend_columns(handles, width))
        return figure_content(figure, form)


def strategy_styles(strategies: pd.Series) -> dict[str, tuple[str, str]]:
    """Colour and marker of each strategy, by its place in the alphabet."""
    names = sorted({str(name) for name in strategies})
    return {name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def _finite(trials: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Completed trials that have every objective."""
    done = with_status(trials, COMPLETED)
    finite = np.isfinite(done[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)).all(axis=1)
    shown: pd.DataFrame = done.loc[finite]
    return shown


def _looks(shown: pd.DataFrame, front: Front, styles: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """How each trial is drawn: filled on the front over all objectives, pale within noise of it, hollow elsewhere."""
    on_front, near = ({point.trial_id for point in points} for points in (front.points, front.near))
    looks = []
    for trial_id, strategy in zip(shown["trial_id"], shown["strategy"], strict=True):
        colour, marker = styles[str(strategy)]
        filled = str(trial_id) in on_front
        pale = (*to_rgb(colour), 0.35)
        face, edge = (colour, "white") if filled else (pale if str(trial_id) in near else "white", colour)
        looks.append({"marker": marker, "facecolor": face, "edgecolor": edge, "s": 58 if filled else 34})
    return looks


def _draw_points(
    axes: Any, shown: pd.DataFrame, pair: tuple[Objective, Objective], looks: Sequence[Mapping[str, Any]]
) -> None:
    x, y = pair
    _scale(axes, shown, pair)
    for across, up, look in zip(shown[x.name], shown[y.name], looks, strict=True):
        axes.scatter(across, up, linewidth=1.1, zorder=3, **look)
    axes.set_xlabel(axis_label(x))
    axes.set_ylabel(axis_label(y))


def _draw_pair_front(axes: Any, shown: pd.DataFrame, pair: tuple[Objective, Objective]) -> None:
    """The staircase of the trials that are not dominated in these two objectives."""
    values = shown[[objective.name for objective in pair]].to_numpy(dtype=np.float64)
    best = values[pareto_mask(values, [objective.direction for objective in pair])]
    best = best[np.argsort(best[:, 0])]
    where = "post" if pair[0].direction == "min" else "pre"
    axes.step(best[:, 0], best[:, 1], where=where, color=QUIET, linewidth=1.2, zorder=2)


def _draw_base(axes: Any, front: Front, pair: tuple[Objective, Objective]) -> None:
    """A dotted line at the base's score, and a cross on it where the other objective is a score too."""
    if not front.base:
        return
    x, y = pair
    axes.axhline(front.base[y.name], color=INK, linewidth=1, linestyle=":", zorder=1)
    if x.name not in COSTS:
        axes.scatter(front.base[x.name], front.base[y.name], marker="x", s=46, color=INK, linewidth=1.5, zorder=4)


def _mark_knee(axes: Any, front: Front, pair: tuple[Objective, Objective]) -> None:
    if front.knee is None:
        return
    position = tuple(front.knee.values[objective.name] for objective in pair)
    axes.scatter(*position, s=190, facecolor="none", edgecolor=INK, linewidth=1.4, zorder=4)
    left = axes.transAxes.inverted().transform(axes.transData.transform(position))[0] > 0.6
    axes.annotate(
        f"knee: {front.knee.strategy}",
        position,
        xytext=(-11 if left else 11, 9),
        textcoords="offset points",
        ha="right" if left else "left",
        color=INK,
        fontweight="bold",
        zorder=5,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def _scale(axes: Any, shown: pd.DataFrame, pair: tuple[Objective, Objective]) -> None:
    """Logarithmic where values span more than a decade and a half."""
    for objective, axis in zip(pair, ("x", "y"), strict=True):
        values = shown[objective.name]
        if len(values) and values.min() > 0 and values.max() / values.min() > LOG_FROM_RATIO:
            axes.set(**{f"{axis}scale": "log"})
        axes.margins(0.12)


def _legend(styles: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    strategies = [handle(name, colour, marker) for name, (colour, marker) in styles.items()]
    line = Line2D([], [], color=QUIET, linewidth=1.2, label="best for the two shown")
    base = Line2D([], [], color=INK, linewidth=1, linestyle=":", label="un-adapted base")
    other = Line2D([], [], color="white", marker="o", markeredgecolor=QUIET, markersize=6, label="hollow: dominated")
    near = Line2D(
        [],
        [],
        color="white",
        marker="o",
        markerfacecolor="#dfe3e8",
        markeredgecolor=QUIET,
        markersize=6,
        label="pale: within noise",
    )
    return [*strategies, line, base, other, near]


def handle(name: str, colour: str, marker: str) -> Line2D:
    """What stands for a strategy in a legend.

    Args:
        name: of the strategy.
        colour, marker: its own.
    """
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=7, label=name)


def legend_columns(handles: Sequence[Line2D], width: float) -> int:
    """The most columns, each as wide as its longest name, that fit across a figure of so many inches; at least one."""
    lengths = [len(str(handle.get_label())) for handle in handles]
    for columns in range(len(lengths), 1, -1):
        parts = np.array_split(lengths, columns)
        if sum(LEGEND_INCHES + INCHES_A_LETTER * max(part) for part in parts) <= width:
            return columns
    return 1


def more_height(handles: Sequence[Line2D], width: float) -> float:
    """Inches that a figure of that width needs for the rows of its legend beyond the first."""
    return INCHES_A_ROW * (-(-len(handles) // legend_columns(handles, width)) - 1)


def figure_content(figure: Figure, form: str) -> bytes:
    """The image file, the same bytes for the same figure.

    It is drawn once: `savefig` draws a figure that lays itself out twice, though the layout comes with each drawing.

    Args:
        figure: what is drawn.
        form: `svg` or `png`.
    """
    buffer = io.BytesIO()
    figure.set_dpi(DOTS_AN_INCH)
    if form == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    else:
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
