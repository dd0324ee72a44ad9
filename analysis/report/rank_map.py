"""Ranks drawn as a map over the network, and over the steps of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from analysis.files import whole_file
from analysis.report.plots import INK, QUIET, figure_content, styled
from analysis.studies.rank_history import GROUPS, LAST, STAGES, Place, RankHistory, place_of

COLOURS: Final = LinearSegmentedColormap.from_list("ranks", ("#f1f5f9", "#a9cbe6", "#4f97cb", "#0072B2", "#00375a"))
QUIET_INK: Final = "#57606a"
TITLES: Final = {"unet": "U-Net", "text_encoder": "Text encoder"}
CELL, GAP = 0.31, 0.35
"""Inches of a cell's side; what is left between blocks and between groups, in cells."""
LEFT, RIGHT, TOP, BOTTOM = 1.5, 0.55, 0.7, 0.5
"""Inches about a panel."""
CURVE: Final = (0.75, 0.0, 3.2, 2.1)
WIDEST = 12.0
Frame = tuple[float, float, float, float]
"""Left, top, width and height in inches."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of the network as a grid.

    Attributes:
        part: the part that is drawn: `unet` or `text_encoder`.
        columns: block and number, in the order of the network.
        rows: group and name of each row, from the top.
        cells: rank by row and column.
    """

    part: str
    columns: tuple[tuple[tuple[str, int], int], ...]
    rows: tuple[tuple[str, str], ...]
    cells: dict[tuple[int, int], int]

    def across(self) -> list[float]:
        """Left edge of each column, in cells."""
        return _edges([block for block, _ in self.columns])

    def down(self) -> list[float]:
        """Upper edge of each row, in cells."""
        return _edges([group for group, _ in self.rows])

    @property
    def frame(self) -> Frame:
        """What it takes, before it has a place."""
        return LEFT, 0.0, CELL * (self.across()[-1] + 1), CELL * (self.down()[-1] + 1)


def draw_rank_map(history: RankHistory, to: Path) -> None:
    """Write a map of the final ranks, and how they came about, as PNG."""
    content = rank_map(history, form="png")
    with whole_file(to) as file:
        file.write(content)


def rank_map(history: RankHistory, *, form: str = "svg") -> bytes:
    """The map as an image file's content.

    One column a transformer or residual block in the order of the network, one row a kind of layer; the text encoder has
    a panel of its own. A last panel has the mean and the largest rank over the steps.
    """
    drawn = panels(history)
    highest = max(2, int(history.ranks[-1].max()))
    frames, (width, height) = arranged([*(panel.frame for panel in drawn), CURVE])
    with styled():
        figure = Figure(figsize=(width, height))
        inches = [
            figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
            for left, top, wide, tall in frames
        ]
        for axes, panel in zip(inches[:-1], drawn, strict=True):
            _draw_panel(axes, panel, Normalize(0, highest))
        _draw_curve(inches[-1], history)
        return figure_content(figure, form)


def panels(history: RankHistory) -> list[Panel]:
    """The final ranks, by part of the network."""
    places = [place_of(path) for path in history.layers]
    parts = sorted({place.part for place in places}, key=lambda part: (part not in TITLES, part != "unet", part))
    final = history.ranks[-1].tolist()
    return [
        _panel(part, [(place, rank) for place, rank in zip(places, final, strict=True) if place.part == part])
        for part in parts
    ]


def _panel(part: str, layers: Sequence[tuple[Place, int]]) -> Panel:
    last: dict[tuple[str, int], int] = {}
    for place, _ in layers:
        if place.column != LAST:
            last[place.block] = max(place.column, last.get(place.block, 0))
    spots = [((p.block, last.get(p.block, 0) if p.column == LAST else p.column), p.row, rank) for p, rank in layers]
    columns = tuple(sorted({column for column, _, _ in spots}, key=_in_network))
    rows = tuple(sorted(dict.fromkeys(row for _, row, _ in spots), key=_in_block))
    cells = {(rows.index(row), columns.index(column)): rank for column, row, rank in spots}
    return Panel(part=part, columns=columns, rows=rows, cells=cells)


def _in_network(column: tuple[tuple[str, int], int]) -> tuple[int, int, int]:
    (stage, number), place = column
    return (STAGES.index(stage) if stage in STAGES else 0), number, place


def _in_block(row: tuple[str, str]) -> tuple[int, int]:
    names = ("q", "k", "v", "in", "out")
    group, name = row
    return GROUPS.index(group), names.index(name) if name in names else len(names)


def _edges(groups: Sequence[object]) -> list[float]:
    """Where cells begin that are one wide, with a gap wherever the group changes."""
    edges = [0.0]
    for before, after in pairwise(groups):
        edges.append(edges[-1] + 1 + (GAP if before != after else 0))
    return edges


def arranged(sizes: Sequence[Frame]) -> tuple[list[Frame], tuple[float, float]]:
    """Place panels: the first at the left, the others beside it in a column, or below it in a row where it is wide.

    Args:
        sizes: left margin, 0, width and height of each, in inches.

    Returns:
        Left, top, width and height of each, and the whole's width and height.
    """
    first, *others = sizes
    wide, tall = outer(first)
    stacked = wide + max(outer(size)[0] for size in others) <= WIDEST
    frames, x, y = [], 0.0, 0.0
    for size in sizes:
        frames.append((x + size[0], y + TOP, size[2], size[3]))
        if size is first:
            x, y = (wide, 0.0) if stacked else (0.0, tall)
        elif stacked:
            y += outer(size)[1]
        else:
            x += outer(size)[0]
    ends = [(left + width + RIGHT, top + height + BOTTOM) for left, top, width, height in frames]
    return frames, (max(end for end, _ in ends), max(end for _, end in ends))


def outer(size: Frame) -> tuple[float, float]:
    """Width and height of a panel with its margins."""
    left, _, width, height = size
    return left + width + RIGHT, TOP + height + BOTTOM


def _draw_panel(axes: Any, panel: Panel, scale: Normalize) -> None:
    across, down = panel.across(), panel.down()
    axes.set(xlim=(0, across[-1] + 1), ylim=(down[-1] + 1, 0), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for (row, column), rank in panel.cells.items():
        _draw_cell(axes, (across[column], down[row]), rank, scale)
    axes.set_title(TITLES.get(panel.part, panel.part.replace("_", " ")), loc="left", fontsize=10, color=INK, pad=24)
    _label_columns(axes, panel, across)
    _label_rows(axes, panel, down)


def _draw_cell(axes: Any, corner: tuple[float, float], rank: int, scale: Normalize) -> None:
    x, y = corner
    shade = float(scale(rank))
    axes.add_patch(Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, facecolor=COLOURS(shade), linewidth=0))
    ink = "white" if shade > 0.55 else INK
    size = 7.5 if rank < 100 else 6 if rank < 1000 else 4.5
    axes.text(x + 0.5, y + 0.53, str(rank), ha="center", va="center", fontsize=size, color=ink)


def _label_columns(axes: Any, panel: Panel, across: Sequence[float]) -> None:
    for left, right, (stage, number) in _runs([block for block, _ in panel.columns], across):
        several = sum(1 for other in {block for block, _ in panel.columns} if other[0] == stage) > 1
        name = f"{stage} {number + 1}" if several else stage
        axes.plot((left + 0.06, right - 0.06), (-0.18, -0.18), color="#c9ced6", linewidth=1, clip_on=False)
        axes.text((left + right) / 2, -0.32, name, ha="center", va="bottom", fontsize=6.8, color=QUIET_INK)


def _label_rows(axes: Any, panel: Panel, down: Sequence[float]) -> None:
    for (_, name), y in zip(panel.rows, down, strict=True):
        axes.text(-0.25, y + 0.53, name, ha="right", va="center", fontsize=7.5, color=INK)
    for top, _, group in _runs([group for group, _ in panel.rows], down):
        if group != GROUPS[-1]:
            axes.text(-1.25, top + 0.53, group, ha="right", va="center", fontsize=7.5, color=QUIET_INK)


def _runs(groups: Sequence[Any], edges: Sequence[float]) -> list[tuple[float, float, Any]]:
    """Start, end and name of each stretch of one group."""
    runs: list[tuple[float, float, Any]] = []
    for group, edge in zip(groups, edges, strict=True):
        if runs and runs[-1][2] == group:
            runs[-1] = (runs[-1][0], edge + 1, group)
        else:
            runs.append((edge, edge + 1, group))
    return runs


def _draw_curve(axes: Any, history: RankHistory) -> None:
    """Mean and largest rank over the steps."""
    lines = (("mean", history.ranks.mean(axis=1), "#0072B2", 1.8), ("largest", history.ranks.max(axis=1), QUIET, 1.2))
    for name, values, colour, width in lines:
        axes.step(history.steps, values, where="post", color=colour, linewidth=width)
        axes.annotate(
            name,
            (history.steps[-1], values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            annotation_clip=False,
        )
    axes.set_title("Rank over the training", loc="left", fontsize=10, color=INK, pad=14)
    axes.set_xlabel("optimiser step")
    axes.set_ylim(0, 1.12 * np.max(history.ranks))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
