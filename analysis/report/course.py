"""How a sweep went: the front's hypervolume over trials and hours, and what each strategy reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from analysis.front.history import History, hypervolume_history
from analysis.front.hypervolume import comparable, hypervolume, nadir
from analysis.front.pareto import Direction, Objective
from analysis.front.statuses import COMPLETED, STOPPED, with_status
from analysis.report.plots import INK, figure_content, styled
from analysis.report.tables import NUMERIC, table
from analysis.report.words import axis_label, label, number, percent
from analysis.run_folder import RunFolder
from analysis.studies.importance import importances

FEWEST_TRIALS = 3
"""Trials from which on a course is worth drawing."""


def course_section(run: RunFolder, embedded: Callable[[bytes, str], str], *, with_importances: bool = True) -> str:
    """The plot and the table; nothing where there are too few trials or one objective.

    Args:
        run: the sweep.
        embedded: makes a data address of a picture's content and kind.
        with_importances: whether to say what objectives depend on, which takes seconds.
    """
    objectives = run.front.objectives
    if len(objectives) < 2:
        return ""
    history = hypervolume_history(run.trials, run.results, objectives)
    if len(history.trial_ids) < FEWEST_TRIALS:
        return ""
    plot = embedded(course_plot(history), "svg+xml")
    return (
        "<h2>How the sweep went</h2><p class='quiet'>Hypervolume: how much of the objectives' space the trials so far dominate, as "
        "a share of what they do at the end; costs count by their logarithms. Hours are those of training and evaluation, of all "
        'trials together.</p><div id="went"><img class="plot still" alt="Hypervolume over trials and hours" '
        f'src="{plot}"></div>'
        f"{attainment_table(attainments(run.trials, objectives), objectives)}"
        f"{importance_table(importances(run.trials, objectives) if with_importances else {})}"
    )


def course_plot(history: History, *, form: str = "svg") -> bytes:
    """The share of the last hypervolume over finished trials and over hours.

    Args:
        history: of the sweep.
        form: the picture's format: `svg` or `png`.
    """
    with styled():
        figure = Figure(figsize=(8.5, 3.0), layout="constrained")
        panels: Any = figure.subplots(1, 2, sharey=True)
        for axes, across, name in zip(
            panels, (history.counts, history.hours), ("completed trials", "hours"), strict=True
        ):
            axes.step(across, history.volumes, where="post", color=INK, linewidth=1.4)
            axes.scatter(across, history.volumes, color=INK, s=12, zorder=3)
            axes.set_xlabel(name)
            axes.set_ylim(0, 1.05)
            axes.set_xlim(left=0)
        panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[0].set_ylabel("hypervolume")
        return figure_content(figure, form)


def importance_table(by_objective: Mapping[str, Mapping[str, float]]) -> str:
    """A row an objective, its hyperparameters with the most important first; nothing where there are too few trials."""
    if not by_objective:
        return ""
    rows = (
        f"<tr><td>{escape(label(name))}</td><td>"
        + escape(", ".join(f"{parameter.replace('_', ' ')} {percent(share)}" for parameter, share in shares.items()))
        + "</td></tr>"
        for name, shares in by_objective.items()
    )
    return (
        "<p class='quiet'>What an objective depends on, of the hyperparameters that all completed trials have: the share of its "
        f"variation that each explains by itself.</p>{table(['objective', 'hyperparameters'], rows)}"
    )


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """What one strategy's trials reached.

    Attributes:
        strategy: the name of the strategy.
        completed, stopped: how many of its trials ended so.
        best: of each objective, by itself, the best value; empty where none completed.
        share: of the hypervolume of all trials, what its trials dominate without the others, in [0, 1].
    """

    strategy: str
    completed: int
    stopped: int
    best: tuple[float, ...]
    share: float


def attainments(trials: pd.DataFrame, objectives: Sequence[Objective]) -> list[Attainment]:
    """What each strategy reached, the one that dominates most first.

    Args:
        trials: one row a trial, at least one of them completed with all objectives.
        objectives: of the sweep.
    """
    names, directions = [objective.name for objective in objectives], [objective.direction for objective in objectives]
    done = with_status(trials, COMPLETED).dropna(subset=names)
    values = comparable(done[names], objectives)
    reference = nadir(values, directions)
    whole = hypervolume(values, directions, reference)
    attained = []
    for strategy, rows in trials.groupby("strategy"):
        members = (done["strategy"] == strategy).to_numpy()
        reached = done.loc[members, names].to_numpy(np.float64)
        attained.append(
            Attainment(
                strategy=str(strategy),
                completed=int(members.sum()),
                stopped=len(with_status(rows, STOPPED)),
                best=_best(reached, directions) if members.any() else (),
                share=hypervolume(values[members], directions, reference) / whole,
            )
        )
    return sorted(attained, key=lambda row: (-row.share, row.strategy))


def _best(values: NDArray[np.float64], directions: Sequence[Direction]) -> tuple[float, ...]:
    """The best value of each column."""
    return tuple(
        float(min(column) if way == "min" else max(column)) for column, way in zip(values.T, directions, strict=True)
    )


def attainment_table(rows: Sequence[Attainment], objectives: Sequence[Objective]) -> str:
    """A row a strategy."""
    best = [f"best {axis_label(objective)}{NUMERIC}" for objective in objectives]
    head = ["strategy", f"completed{NUMERIC}", f"stopped{NUMERIC}", *best, f"hypervolume by itself{NUMERIC}"]
    return table(head, (_row(row, len(objectives)) for row in rows))


def _row(attainment: Attainment, num_objectives: int) -> str:
    values = [*map(number, attainment.best)] or ["–"] * num_objectives
    texts = [number(attainment.completed), number(attainment.stopped), *values, percent(attainment.share)]
    cells = "".join(f'<td class="n">{escape(text)}</td>' for text in texts)
    return f"<tr><td>{escape(attainment.strategy)}</td>{cells}</tr>"
