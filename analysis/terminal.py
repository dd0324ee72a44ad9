"""The terminal: the console of all commands, how they fail, and how figures and paths are printed."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

PLAIN_WIDTH = 130


def new_console() -> Console:
    """The terminal, or lines of a readable width where the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what was wrong, and end."""
    Console(stderr=True, highlight=False).print(f"[red]error[/red] {escape(message)}", soft_wrap=True)
    raise typer.Exit(code)


def number(value: object) -> str:
    """A figure as one reads it: whole numbers with separators, others to four digits."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"
    return f"{int(value):,}" if isinstance(value, int | float) else str(value)


def relative(path: Path) -> Path:
    """The path as the user would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
