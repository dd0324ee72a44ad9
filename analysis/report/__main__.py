"""Rebuild the report of a run: `python -m analysis.report --run DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from analysis.report.agreement import agreement_lines
from analysis.report.page import write_report
from analysis.report.plots import draw_front
from analysis.report.printed import print_tables
from analysis.run_folder import FRONT_PLOT, RunFolder
from analysis.studies.rung_agreement import rung_agreements
from analysis.terminal import explained, new_console


def main(
    run: Annotated[Path, typer.Option(help="The run directory that `python -m sweep.run` printed.", metavar="DIR")],
    tables: Annotated[
        bool,
        typer.Option(
            "--tables", help="Print the evaluated finalists' tables: Pixels under Pressure's, and the replayed study's."
        ),
    ] = False,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", help="Another run of the same data, to choose among both; may be repeated.", metavar="DIR"
        ),
    ] = None,
) -> None:
    """Rebuild DIR/report.html and DIR/pareto.png from what is on disk.

    Example: python -m analysis.report --run runs/second --with runs/first
    """
    console = new_console()
    with explained():
        if tables:
            print_tables(run, console)
        else:
            rebuild(run, console, others or ())


def rebuild(run: Path, console: Console, others: Sequence[Path] = ()) -> None:
    """Write the page and the plot anew, and say what the evaluations during training were worth.

    Args:
        run: its directory.
        console: where that is printed.
        others: directories of runs to show beside it.
    """
    page, opened_run = write_report(run, others), RunFolder.open(run)
    if len(opened_run.front.objectives) > 1:
        draw_front(opened_run.trials, opened_run.front, run / FRONT_PLOT)
    lines = agreement_lines(rung_agreements(opened_run.results, opened_run.front.objectives))
    for line in (*lines, f"{page} ({page.stat().st_size / 2**20:.1f} MiB)"):
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
