"""Learning curves: what trials reported epoch by epoch, where they were compared, and where they were stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.features import split_metric
from analysis.front.statuses import STOPPED, with_status
from analysis.metrics import METRICS
from analysis.report.plots import (
    INK,
    QUIET,
    figure_content,
    handle,
    legend_columns,
    more_height,
    strategy_styles,
    styled,
)
from analysis.report.words import label
from analysis.run_folder import RunFolder
from analysis.studies.rung_agreement import EARLY

PANELS_ACROSS = 4
"""Panels that stand side by side."""
STOP: dict[str, Any] = {"color": INK, "marker": "x", "linestyle": "none", "markersize": 7, "markeredgewidth": 1.6}
RUNG: dict[str, Any] = {"color": QUIET, "linewidth": 0.9, "linestyle": ":"}


def curve_plot(run: RunFolder, *, form: str = "svg") -> bytes | None:
    """Training loss, and metrics where they were taken at more than one epoch: one panel each, one line a trial.

    A dotted line stands at each rung, and a cross where a trial was stopped. None: nothing is a curve.

    Args:
        run: the sweep.
        form: the picture's format: `svg` or `png`.
    """
    columns = curve_columns(run)
    if not columns:
        return None
    strategies = dict(zip(run.trials["trial_id"].astype(str), run.trials["strategy"].astype(str), strict=True))
    stopped = set(with_status(run.trials, STOPPED)["trial_id"].astype(str))
    rungs, styles = rung_epochs(run.results), strategy_styles(pd.Series(list(strategies.values())))
    with styled():
        across = min(len(columns), PANELS_ACROSS)
        down = -(-len(columns) // across)
        handles = [*_handles(styles), *_marks(has_rungs=bool(rungs), has_stops=bool(stopped))]
        width = min(4.1 * across + 0.3, 12.6)
        figure = Figure(figsize=(width, 2.8 * down + 0.6 + more_height(handles, width)), layout="constrained")
        for place, column in enumerate(columns, start=1):
            axes = figure.add_subplot(down, across, place)
            _draw_curves(axes, run.results, column, {trial: styles[name] for trial, name in strategies.items()})
            _draw_stops(axes, run.results[run.results["trial_id"].astype(str).isin(stopped)], column)
            for epoch in rungs:
                axes.axvline(epoch, zorder=1.5, gid=f"{column} rung {epoch}", **RUNG)
        figure.legend(handles=handles, loc="outside upper center", ncols=legend_columns(handles, width))
        return figure_content(figure, form)


def curve_columns(run: RunFolder) -> list[str]:
    """What is drawn over the epochs."""
    return [str(name) for name in run.results.columns if _is_drawn(run, name) and _is_a_curve(run, name)]


def rung_epochs(results: pd.DataFrame) -> Sequence[int]:
    """The epochs, from 0, after which trials were evaluated early, ascending."""
    early = [name for name in results.columns if str(name).startswith(EARLY)]
    return sorted(int(epoch) for epoch in results.loc[results[early].notna().any(axis=1), "epoch"].unique())


def _is_drawn(run: RunFolder, column: str) -> bool:
    """The loss, what early evaluations measured, and objectives that are metrics; over all films only."""
    measured = split_metric(column.removeprefix(EARLY))[0] in METRICS
    wanted = column.startswith(EARLY) or column in {objective.name for objective in run.front.objectives}
    return column == "loss" or (measured and wanted and "/" not in column)


def _is_a_curve(run: RunFolder, column: str) -> bool:
    known = run.results.dropna(subset=[column])
    return bool((known.groupby("trial_id")["epoch"].nunique() > 1).any())


def _draw_curves(axes: Any, results: pd.DataFrame, column: str, styles: Mapping[str, tuple[str, str]]) -> None:
    for trial, rows in _known(results, column):
        colour, marker = styles.get(trial, (QUIET, "o"))
        look = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.3, "alpha": 0.85}
        axes.plot(rows["epoch"], rows[column], gid=f"{column} of {trial}", **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label(column))


def _draw_stops(axes: Any, results: pd.DataFrame, column: str) -> None:
    """A cross at the last point of each trial."""
    for trial, rows in _known(results, column):
        axes.plot(rows["epoch"].iloc[-1], rows[column].iloc[-1], gid=f"{column} stop of {trial}", **STOP)


def _known(results: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """By trial, the reports that have the column, in the order of epochs; trials without one are left out."""
    for trial, rows in results.dropna(subset=[column]).groupby("trial_id", sort=False):
        yield str(trial), rows.sort_values("epoch")


def _handles(styles: Mapping[str, tuple[str, str]]) -> list[Line2D]:
    return [handle(name, colour, marker) for name, (colour, marker) in styles.items()]


def _marks(*, has_rungs: bool, has_stops: bool) -> list[Line2D]:
    """What is drawn besides the curves, for the legend."""
    rung, stop = Line2D([], [], label="rung", **RUNG), Line2D([], [], label="stopped", **STOP)
    return [*([rung] if has_rungs else []), *([stop] if has_stops else [])]
