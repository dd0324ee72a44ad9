"""Rebuild the report of a run: `python -m analysis.report --run DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from analysis.report.agreement import agreement_lines
from analysis.report.page import write_report
from analysis.report.paper import print_tables
from analysis.report.plots import draw_front
from analysis.run_folder import RunFolder
from analysis.studies.rung_agreement import rung_agreements

PLAIN_WIDTH = 150


def main(
    run: Annotated[Path, typer.Option(help="The run directory that `python -m sweep.run` printed.", metavar="DIR")],
    tables: Annotated[
        bool, typer.Option("--tables", help="Print the tables of Pixels under Pressure for the evaluated finalists.")
    ] = False,
) -> None:
    """Rebuild DIR/report.html and DIR/pareto.png from what is on disk.

    Example: python -m analysis.report --run runs/demo
    """
    try:
        if tables:
            print_tables(run, new_console())
            return
        path = write_report(run)
        held = RunFolder.open(run)
        if len(held.front.objectives) > 1:
            draw_front(held.trials, held.front.objectives, run / "pareto.png")
    except (OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    for line in agreement_lines(rung_agreements(held.results, held.front.objectives)):
        typer.echo(line)
    typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def new_console() -> Console:
    """The terminal, or lines of a readable width where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


if __name__ == "__main__":
    typer.run(main)
