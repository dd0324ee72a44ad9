"""The tables of a run's final evaluation in the terminal: those of "Pixels under Pressure", and a replayed study's own."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.final_scores import BASE, read_finalists
from analysis.report.paper import PaperTable, paper_tables
from analysis.report.published import Beside, beside_published
from analysis.report.subgroups import subgroup_tables
from analysis.run_folder import CONFIG


def print_tables(run: Path, console: Console) -> None:
    """Print the tables of a run, and those of the study that it replays.

    Raises:
        FileNotFoundError: nothing of the run was evaluated.
        ValueError: a file is damaged.
    """
    comparable = read_finalists(run)
    tables = paper_tables(comparable.finalists)
    if not tables:
        raise FileNotFoundError(
            f"`--tables` must be of a run whose finalists were evaluated, but got {str(run)!r}. "
            "Evaluate them with `python -m sweep.evaluate --run DIR`."
        )
    adapted = [finalist for finalist in comparable.finalists if finalist.trial_id != BASE]
    for table in (*tables, *subgroup_tables(adapted)):
        console.print(_for_terminal(table))
    for published in beside_published(_preset_of(run), adapted):
        console.print(_beside_for_terminal(published))
    if comparable.note:
        console.print(comparable.note, highlight=False, soft_wrap=True)


def _preset_of(run: Path) -> str:
    config = run / CONFIG
    return str(json.loads(config.read_text(encoding="utf-8")).get("preset", "")) if config.is_file() else ""


def _beside_for_terminal(published: Beside) -> Table:
    shown = Table(title=f"{published.title} (ours / published)", title_justify="left", caption_justify="left")
    shown.caption = published.verdict
    for position, name in enumerate(published.head):
        shown.add_column(name, justify="right" if position else "left", overflow="fold")
    for row in published.rows:
        shown.add_row(*row)
    return shown


def _for_terminal(table: PaperTable) -> Table:
    shown = Table(title=table.title, title_justify="left", caption=table.note, caption_justify="left")
    for position, name in enumerate(table.head):
        shown.add_column(name, justify="left" if position < table.num_texts else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(cell.replace(" [", "\n[") for cell in row))
    shown.add_section()
    for row in table.references:
        shown.add_row(*row, style="dim")
    return shown
